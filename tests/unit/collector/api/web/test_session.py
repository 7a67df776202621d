"""Keys in cookies, and tokens in forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.api.web.session import COOKIE, cookie_with, headers_of, is_over_tls, key_in, token_of


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"cookie": f"{COOKIE}=isage_a"}, b"isage_a"),
        ({"cookie": f"other=1; {COOKIE}=isage_a; more=2"}, b"isage_a"),
        ({"cookie": f"{COOKIE}="}, None),
        ({"cookie": f"a[1]=x y; b; {COOKIE}=isage_a"}, b"isage_a"),
        ({"cookie": f"{COOKIE}=isage_b;{COOKIE}=isage_a"}, b"isage_a"),
        ({"cookie": f"{COOKIE}=isage_a".ljust(8192, ";")}, b"isage_a"),
        ({"cookie": f"{COOKIE}=isage_a".ljust(8193, ";")}, None),
        ({"cookie": "other=1"}, None),
        ({"x-api-key": "isage_b", "cookie": f"{COOKIE}=isage_a"}, b"isage_b"),
        ({"authorization": "Bearer isage_b", "cookie": f"{COOKIE}=isage_a"}, b"isage_b"),
        ({"authorization": "Basic eDp5", "cookie": f"{COOKIE}=isage_a"}, b"isage_a"),
    ],
)
def test_where_the_key_is(headers: dict[str, str], key: bytes | None) -> None:
    """A header counts before the cookie; credentials of a proxy in between are no key."""
    assert key == key_in(headers)


@given(st.binary(max_size=200))
def test_any_cookie_is_read(cookie: bytes) -> None:
    key_in(headers_of([(b"cookie", cookie)]))


def test_cookies_of_http_2_may_come_in_pieces() -> None:
    assert key_in(headers_of([(b"cookie", b"a=1"), (b"cookie", f"{COOKIE}=isage_a".encode())])) == b"isage_a"


@pytest.mark.parametrize(
    ("said", "expected"), [("https", True), ("HTTPS, http", True), ("http, https", False), ("http", False), (None, False)]
)
def test_the_first_proxy_says_whether_a_browser_came_over_tls(said: str | None, expected: bool) -> None:
    assert expected == is_over_tls({} if said is None else {"x-forwarded-proto": said})


def test_the_cookie_is_for_this_site_alone() -> None:
    plain = cookie_with("isage_a", path="/", is_secure=False)
    assert plain == f"{COOKIE}=isage_a; Path=/; HttpOnly; SameSite=Strict"
    assert cookie_with("isage_a", path="/", is_secure=True) == f"{plain}; Secure"
    assert "Max-Age=0" in cookie_with("", path="/", is_secure=False)


def test_a_token_is_of_one_key() -> None:
    assert token_of(b"a") == token_of(b"a")
    assert token_of(b"a") != token_of(b"b")
    assert len(token_of(b"a")) == 32
