"""Turn the key of a request into a Caller that may send or read, or refuse it.

Invariants:
1. A refusal never contains the key. It is the same for every key that is not in force, whatever the key once was
   (test_all_wrong_keys_get_the_same_answer).
"""

from base64 import b64decode
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from adapters.errors import (
    INSUFFICIENT_SCOPE,
    INVALID_API_KEY,
    MISSING_API_KEY,
    ORIGIN_NOT_ALLOWED,
    REASON,
    RequestRefused,
)
from collector.tenancy.identity import Caller
from collector.tenancy.scopes import Scope

_BEARER: Final = b"bearer"
_BASIC: Final = b"basic"
_KEY_PREFIX: Final = b"isage_"
_QUERY_NAME: Final = b"api_key="
_BETWEEN: Final = b", "
_SENDING: Final = ", ".join(scope for scope in Scope if scope.sends)
_READING: Final = ", ".join(scope for scope in Scope if scope.reads)


def key_of(api_key: bytes | None, authorization: bytes | None) -> bytes | None:
    """Return the key in a request: from X-API-Key, or else from `Authorization: Bearer`. A text in the format of our keys is
    also taken from `Authorization: Basic` (the password or else the name), from any other scheme, or without one. None if the
    request has no key.

    A header that came several times is passed as one header with commas between (RFC 9110, 5.3). Equal values count as one,
    since a proxy may repeat the header; different values are an unknown key. An empty X-API-Key counts only if there is no
    other key. Other uses of Authorization are ignored: they may be meant for a proxy.
    """
    if api_key is not None:
        api_key = _only_value(api_key)
        if api_key.strip() or authorization is None:
            return api_key
    if authorization is None:
        return None
    authorization = _only_value(authorization)
    scheme, _, credentials = authorization.strip().partition(b" ")
    if scheme.lower() == _BEARER:
        return credentials.strip()
    for key in _parts_of(credentials.strip()) if scheme.lower() == _BASIC else (credentials.strip() or scheme,):
        if key.startswith(_KEY_PREFIX):
            return key
    return api_key


def _only_value(header: bytes) -> bytes:
    """Return the value of a header that came several times with the same value; any other header as it is."""
    first, comma, _ = header.partition(_BETWEEN)
    times = (len(header) + len(_BETWEEN)) // (len(first) + len(_BETWEEN))
    return first if comma and header == _BETWEEN.join([first] * times) else header


def key_in_query(query: bytes) -> bytes | None:
    """Return the key in the query of a target, `api_key=KEY`; None if it has none. A repeated one is an unknown key."""
    keys = [part[len(_QUERY_NAME) :] for part in query.split(b"&") if part.startswith(_QUERY_NAME)]
    return b", ".join([unquote_to_bytes(key) for key in keys]) if keys else None


def _parts_of(credentials: bytes) -> tuple[bytes, ...]:
    """Return the password and the name; an empty tuple if they are not base64."""
    try:
        name, _, password = b64decode(credentials, validate=True).partition(b":")
    except ValueError:
        return ()
    return password, name


class Access:
    """Checks the key of each request, before any other part of the request."""

    def __init__(self, find: Callable[[bytes], Caller | None], anonymous: Caller | None) -> None:
        """`find` is the keyring's. `anonymous` is the caller of requests without a key; None if they are refused."""
        self._find: Final = find
        self._anonymous: Final = anonymous

    def sender(self, key: bytes | None, origin: bytes = b"") -> Caller:
        """Return the caller of a request that sends. `origin` is the Origin header of a browser. Raises RequestRefused:
        MISSING_API_KEY, INVALID_API_KEY, INSUFFICIENT_SCOPE, ORIGIN_NOT_ALLOWED."""
        if key is None and self._anonymous is not None:
            return self._anonymous
        caller = self._caller(key)
        if not caller.scope.sends:
            raise _not_allowed(caller, "sending", _SENDING)
        if caller.origins is not None and not caller.origins.allows(origin):
            raise RequestRefused(
                ORIGIN_NOT_ALLOWED,
                f"key {caller.key_id} is for pages of {', '.join(caller.origins.patterns)}, by their Origin header",
            )
        return caller

    def reader(self, key: bytes | None) -> Caller:
        """Return the caller of a request that reads, which needs a key. Raises RequestRefused as `sender` does."""
        caller = self._caller(key)
        if not caller.scope.reads:
            raise _not_allowed(caller, "reading", _READING)
        return caller

    def find(self, key: bytes) -> Caller | None:
        """Return the caller of a key, whatever its scope; None if the key is not in force."""
        return self._find(key)

    def _caller(self, key: bytes | None) -> Caller:
        if key is None:
            raise RequestRefused(MISSING_API_KEY, f"{REASON[MISSING_API_KEY].meaning}: {REASON[MISSING_API_KEY].remedy}")
        caller = self._find(key)
        if caller is None:
            raise RequestRefused(INVALID_API_KEY, REASON[INVALID_API_KEY].meaning)
        return caller


def _not_allowed(caller: Caller, what: str, scopes: str) -> RequestRefused:
    return RequestRefused(INSUFFICIENT_SCOPE, f"key {caller.key_id} has scope {caller.scope}, and {what} needs one of {scopes}")
