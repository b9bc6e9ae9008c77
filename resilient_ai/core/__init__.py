"""The vocabulary: operations, results, errors, call, pipeline. Nothing here knows a provider or a middleware."""
