"""A call's own deadline, as its client sends it in `grpc-timeout`.

Source: gRPC's PROTOCOL-HTTP2.md.
"""

from math import inf
from typing import Final

_BYTES_MAX: Final = 9
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_SHOWN_BYTES_MAX: Final = 100


class Timeout:
    """The deadline of one call."""

    def __init__(self, header: bytes | None) -> None:
        """`header` is the value of `grpc-timeout`; None if the header is missing. A header that was sent several times has
        commas, so it is malformed."""
        self.seconds: float = inf
        self.problem: str = ""
        """Why the value is malformed; empty if it is not."""
        if header is None:
            return
        unit_s = _UNITS_S.get(header[-1:])
        if unit_s is None or len(header) > _BYTES_MAX or not header[:-1].isdigit():
            shown = header[:_SHOWN_BYTES_MAX].decode("latin-1")
            self.problem = f"grpc-timeout {shown!r} is not 1 to 8 digits and one of H, M, S, m, u, n, for example 10S"
        else:
            self.seconds = int(header[:-1]) * unit_s
