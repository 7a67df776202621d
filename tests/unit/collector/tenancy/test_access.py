"""Who may send and who may read."""

from base64 import b64encode

import pytest

from adapters.errors import INSUFFICIENT_SCOPE, INVALID_API_KEY, MISSING_API_KEY, RequestRefused
from collector.tenancy.access import Access, key_of
from collector.tenancy.identity import Caller
from collector.tenancy.plans import FREE, UNLIMITED
from collector.tenancy.scopes import Scope

ANONYMOUS = Caller("anonymous", Scope.INGEST, UNLIMITED, "")
CALLERS = {f"key of {scope}".encode(): Caller("acme", scope, FREE, "7h3k9x2m") for scope in Scope}


def access(*, anonymous: bool) -> Access:
    return Access(CALLERS.get, ANONYMOUS if anonymous else None)


def refused(access: Access, what: str, key: bytes | None) -> RequestRefused | None:
    try:
        getattr(access, what)(key)
    except RequestRefused as error:
        return error
    return None


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize(
    ("key", "sends", "reads"),
    [
        (b"key of ingest", None, INSUFFICIENT_SCOPE),
        (b"key of readonly", INSUFFICIENT_SCOPE, None),
        (b"key of write", None, None),
        (b"key of admin", None, None),
        (b"another key", INVALID_API_KEY, INVALID_API_KEY),
        (b"", INVALID_API_KEY, INVALID_API_KEY),
    ],
)
def test_a_key_may_what_its_scope_says(key: bytes, sends: int | None, reads: int | None, anonymous: bool) -> None:
    """A wrong key may do nothing, also where none would be needed."""
    asked = access(anonymous=anonymous)
    for what, expected in (("sender", sends), ("reader", reads)):
        error = refused(asked, what, key)
        assert (error.reason if error else None) == expected
        if expected is None:
            assert getattr(asked, what)(key) == CALLERS[key]


@pytest.mark.parametrize(("anonymous", "sends"), [(True, None), (False, MISSING_API_KEY)])
def test_without_a_key_one_may_send_where_that_is_allowed(anonymous: bool, sends: int | None) -> None:
    """One sends as the anonymous tenant, and never reads."""
    asked = access(anonymous=anonymous)
    error = refused(asked, "sender", None)
    assert (error.reason if error else None) == sends
    if anonymous:
        assert asked.sender(None) is ANONYMOUS
    reading = refused(asked, "reader", None)
    assert reading is not None
    assert reading.reason == MISSING_API_KEY
    assert reading.message == (
        "an API key is required: send one as X-API-Key or Authorization: Bearer (gRPC: metadata x-api-key)"
    )


def test_a_lacking_scope_is_named() -> None:
    """The error has the key's scope, the scopes that are needed, and the key's public id, which its owner may know."""
    sending = refused(access(anonymous=True), "sender", b"key of readonly")
    reading = refused(access(anonymous=True), "reader", b"key of ingest")
    assert sending is not None
    assert reading is not None
    assert sending.message == "key 7h3k9x2m has scope readonly, and sending needs one of ingest, write, admin"
    assert reading.message == "key 7h3k9x2m has scope ingest, and reading needs one of readonly, write, admin"


@pytest.mark.parametrize("key", [b"", b"x", b"isage_secret", b"\xff" * 5000])
def test_all_wrong_keys_get_the_same_answer(key: bytes) -> None:
    """The answer has nothing of the key in it."""
    for what in ("sender", "reader"):
        error = refused(access(anonymous=True), what, key)
        assert error is not None
        assert error.message == "the API key is unknown, revoked or expired"


@pytest.mark.parametrize(
    ("api_key", "authorization", "expected"),
    [
        (None, None, None),
        (b"k", None, b"k"),
        (b"k", b"Bearer other", b"k"),
        (b"", b"Bearer k", b"k"),
        (b" ", b"Bearer k", b"k"),
        (b"", None, b""),
        (b"", b"Basic dXNlcjpwYXNz", b""),
        (b"k, k", None, b"k"),
        (b"k, k, k", None, b"k"),
        (b"k, k, x", None, b"k, k, x"),
        (b"k, kk", None, b"k, kk"),
        (b"k, k, ", None, b"k, k, "),
        (b", ", b"Bearer k", b"k"),
        (b", ", None, b""),
        (None, b"Bearer k", b"k"),
        (None, b"bearer k", b"k"),
        (None, b"BEARER   k ", b"k"),
        (None, b"Bearer", b""),
        (None, b"Bearer ", b""),
        (None, b"Bearer a, Bearer b", b"a, Bearer b"),
        (None, b"Bearer a, Bearer a", b"a"),
        (None, b"isage_k, isage_k", b"isage_k"),
        (None, b"Bearer , Bearer ", b""),
        (None, b"Basic dXNlcjpwYXNz", None),
        (None, b"Basic " + b64encode(b"user:isage_k:x"), b"isage_k:x"),
        (None, b"basic " + b64encode(b":isage_k"), b"isage_k"),
        (b"k", b"Basic " + b64encode(b"user:isage_k"), b"k"),
        (None, b"Basic " + b64encode(b"isage_k"), b"isage_k"),
        (None, b"Basic " + b64encode(b"isage_k:"), b"isage_k"),
        (None, b"Basic " + b64encode(b"isage_k:x"), b"isage_k"),
        (None, b"Basic " + b64encode(b"isage_a:isage_k"), b"isage_k"),
        (None, b"Basic isage_k", None),
        (None, b"isage_k", b"isage_k"),
        (None, b" isage_k ", b"isage_k"),
        (b"", b"isage_k", b"isage_k"),
        (None, b"Token isage_k", b"isage_k"),
        (None, b"ApiKey  isage_k", b"isage_k"),
        (None, b"Token k", None),
        (b"k", b"isage_k", b"k"),
        (None, b"Basic \xff", None),
        (None, b"Bearerk", None),
        (None, b"k", None),
        (None, b"", None),
    ],
)
def test_a_key_comes_in_one_of_two_headers(api_key: bytes | None, authorization: bytes | None, expected: bytes | None) -> None:
    """X-API-Key before Authorization, unless it is empty; of other schemes than Bearer what is written as a key of ours.
    One that comes twice with one value is that value."""
    assert key_of(api_key, authorization) == expected
