"""Join the fields of a head that come several times."""


def joined(before: bytes | None, value: bytes) -> bytes:
    """Return a field's values as one value (RFC 9110, 5.3). `before` has the earlier values; None if there is none."""
    return value if before is None else before + b", " + value
