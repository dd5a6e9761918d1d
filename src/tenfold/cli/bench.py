def bench() -> None:
    """Stub."""
