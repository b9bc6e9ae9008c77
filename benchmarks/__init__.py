"""The measured claims, side by side with peers in one run."""
