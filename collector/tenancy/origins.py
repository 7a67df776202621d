"""Patterns of web pages' origins in settings and keys: `https://app.example.com`, `https://*.example.com`,
`http://localhost:*`, `null`, or `*`.

Invariants:
1. A wildcard matches only its part: a page of another domain is not allowed because its name begins or ends in the same way
   (test_an_origin_is_allowed_or_not).
"""

import re
from collections.abc import Sequence
from typing import Final

ORIGIN_LENGTH_MAX: Final = 256
ORIGINS_MAX: Final = 64

_SCHEME: Final = r"[a-z][a-z0-9+.-]*"
_NAME: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_PATTERN: Final = re.compile(rf"({_SCHEME})://(\*|\*\.{_NAME}|{_NAME}|\[[0-9a-f:.]+\])(?::(\*|[0-9]{{1,5}}))?")
_ANY_HOST: Final = r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])"


def origin_problem(pattern: str) -> str | None:
    """Return why this is no valid pattern; None if it is."""
    if pattern in ("*", "null"):
        return None
    if len(pattern) > ORIGIN_LENGTH_MAX:
        return f"has {len(pattern)} characters; at most {ORIGIN_LENGTH_MAX} are allowed"
    if not _PATTERN.fullmatch(pattern.lower()):
        return (
            "is no origin: write https://app.example.com, https://*.example.com, http://localhost:*, null or *, without a path"
        )
    return None


class Origins:
    """The origins that match at least one pattern. Raises ValueError if a pattern is invalid."""

    def __init__(self, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            if (problem := origin_problem(pattern)) is not None:
                raise ValueError(f"{pattern} {problem}")
        self.patterns: Final = tuple(patterns)
        self._allows_all: Final = "*" in patterns
        self._regex: Final = re.compile("|".join(_regex(pattern.lower()) for pattern in patterns if pattern != "*") or r"(?!)")

    @property
    def allows_all(self) -> bool:
        return self._allows_all

    def allows(self, origin: bytes) -> bool:
        """Return whether a page with this value of the Origin header is allowed. An empty value is not."""
        if not origin or len(origin) > ORIGIN_LENGTH_MAX:
            return False
        return self._allows_all or self._regex.fullmatch(origin.decode("latin-1").lower()) is not None


def _regex(pattern: str) -> str:
    match = _PATTERN.fullmatch(pattern)
    if match is None:
        return re.escape(pattern)  # null
    scheme, host, port = match.groups()
    if host == "*":
        host = _ANY_HOST
    elif host.startswith("*."):
        host = rf"{_NAME}{re.escape(host[1:])}"
    else:
        host = re.escape(host)
    return f"{re.escape(scheme)}://{host}" + ("" if port is None else r"(?::[0-9]{1,5})?" if port == "*" else f":{port}")
