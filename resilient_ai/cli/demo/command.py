"""`resilient-ai demo`."""
def demo() -> None:
    """Stub."""
