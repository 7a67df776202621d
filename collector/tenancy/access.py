"""Who may send and who may read: from the key of a request to a Caller, or a refusal.

Invariants:
1. A refusal never contains the key. It says the same of every key that is not in force, whatever the key once was
   (test_all_wrong_keys_are_told_the_same).
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
    """The key in a request: of X-API-Key, or else of `Authorization: Bearer`; or, where it is written as our keys are, the
    password or else the name of `Authorization: Basic`, or the credentials of any other scheme or of none. None where none of
    them is there.

    A header that came several times is given as one, with commas between (RFC 9110, 5.3). With one value it is that, as a proxy
    sends it that sets what was there already; else it is nobody's key. An empty X-API-Key counts only where there is nothing
    else. Other uses of Authorization are not ours but, say, of a proxy on the way.
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
    """The value of a header that came several times with the same one; of any other, all of it."""
    first, comma, _ = header.partition(_BETWEEN)
    times = (len(header) + len(_BETWEEN)) // (len(first) + len(_BETWEEN))
    return first if comma and header == _BETWEEN.join([first] * times) else header


def key_in_query(query: bytes) -> bytes | None:
    """The key in the query of a target, `api_key=KEY`; None where there is none. One that comes twice is nobody's key."""
    keys = [part[len(_QUERY_NAME) :] for part in query.split(b"&") if part.startswith(_QUERY_NAME)]
    return b", ".join([unquote_to_bytes(key) for key in keys]) if keys else None


def _parts_of(credentials: bytes) -> tuple[bytes, ...]:
    """The password and the name; none where they are not base64."""
    try:
        name, _, password = b64decode(credentials, validate=True).partition(b":")
    except ValueError:
        return ()
    return password, name


class Access:
    """Asked once a request, before anything else of it is looked at."""

    def __init__(self, find: Callable[[bytes], Caller | None], anonymous: Caller | None) -> None:
        """`find`: the keyring's. `anonymous`: who sends without a key; None: nobody may."""
        self._find: Final = find
        self._anonymous: Final = anonymous

    def sender(self, key: bytes | None, origin: bytes = b"") -> Caller:
        """`origin`: of the page that sends, as its browser says it. Raises RequestRefused: MISSING_API_KEY, INVALID_API_KEY,
        INSUFFICIENT_SCOPE, ORIGIN_NOT_ALLOWED."""
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
        """As `sender`; without a key nobody reads."""
        caller = self._caller(key)
        if not caller.scope.reads:
            raise _not_allowed(caller, "reading", _READING)
        return caller

    def find(self, key: bytes) -> Caller | None:
        """Whose key that is, whatever it may do; None: nobody's."""
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
