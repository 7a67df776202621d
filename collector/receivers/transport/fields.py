"""Fields of a head that come several times."""


def joined(before: bytes | None, value: bytes) -> bytes:
    """Return a field's values as one (RFC 9110, 5.3). `before`: those that came before; None: this is the first."""
    return value if before is None else before + b", " + value
