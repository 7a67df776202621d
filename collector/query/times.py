"""Times of pages and commands in RFC 3339. Times in questions must be in the range that the store can hold."""

from datetime import UTC, datetime
from typing import Final

from adapters.codec.rfc3339 import BEFORE, BEYOND, INVALID, parse_time

# ClickHouse's DateTime64(9) begins in 1900 and ends where 64 bits of nanoseconds do.
_FIRST_YEAR: Final = 1900
_RANGE: Final = "from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z, the times that the store can hold"
_SHOWN_MAX: Final = 100


def unix_nano_of(name: str, text: str) -> int:
    """Return nanoseconds since the Unix epoch; 0 for an earlier time, which no item can have. `name` is the parameter's name.

    Raises ValueError, which says what `name` must be.
    """
    found = parse_time(text.encode(errors="replace"))
    if found == INVALID:
        raise ValueError(f"{name} must be RFC 3339, as 2026-04-10T12:00:00Z, not {text[:_SHOWN_MAX]!r}")
    if found == BEYOND or (found == BEFORE and int(text[:4]) < _FIRST_YEAR):
        raise ValueError(f"{name} must be {_RANGE}, not {text[:_SHOWN_MAX]!r}")
    return max(found, 0)


def rfc3339(unix_nano: int) -> str:
    """Return a time in UTC, with a fraction only if there is one."""
    seconds, nanos = divmod(int(unix_nano), 10**9)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"
