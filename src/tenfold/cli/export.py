def export() -> None:
    """Stub."""
