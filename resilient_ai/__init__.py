"""A production client for DeepInfra's language, embedding and image models."""
