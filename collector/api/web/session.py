"""Find the API key of a request for a web page, and check that a form was sent from a page of this site.

A browser has its API key in a cookie, which the login form sets. The process keeps no sessions, so every gateway accepts every
browser, and the sessions of a revoked key end at once.

Invariants:
1. A form changes nothing unless it has the token that only pages for the same key contain. It also changes nothing if the
   browser reports that a page of another site sent it (test_a_form_of_another_site_changes_nothing).
2. Scripts can't read the cookie. It is sent from pages of this site only, and, if it was set over TLS, only over TLS
   (test_the_cookie_is_for_this_site_alone).
"""

import asyncio
import hmac
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.types import Receive

from adapters.errors import INSUFFICIENT_SCOPE, INVALID_PARAMETER, PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, RequestRefused
from collector.tenancy.access import key_of

COOKIE: Final = "infrasage_key"
TOKEN_FIELD: Final = "token"  # noqa: S105  # a field's name
FORM_TYPE: Final = "application/x-www-form-urlencoded"

_TOKEN_PURPOSE: Final = b"infrasage form token"
_TOKEN_HEX_DIGITS: Final = 32
_FIELDS_MAX: Final = 1000
# Servers and proxies commonly accept no larger head.
_COOKIES_BYTES_MAX: Final = 8192

Headers = Mapping[str, str]
Form = Mapping[str, list[str]]


class ClientDisconnected(Exception):
    """The client has closed its connection: nobody waits for an answer."""


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers by name. Several of one name are joined by commas, and cookies by semicolons."""
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in found else text
    return found


def is_over_tls(headers: Headers) -> bool:
    """Return whether a proxy reports that the browser used TLS. Of several proxies, the first counts."""
    return headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower() == "https"


def key_in(headers: Headers) -> bytes | None:
    """Return the key in a request: from a header, as the API takes it, or else from the cookie; None if there is none."""
    api_key, authorization = headers.get("x-api-key"), headers.get("authorization")
    key = key_of(
        None if api_key is None else api_key.encode("latin-1"),
        None if authorization is None else authorization.encode("latin-1"),
    )
    if key is not None:
        return key
    cookie = _cookie(headers.get("cookie", ""))
    return cookie.encode("latin-1", "replace") or None


def _cookie(header: str) -> str:
    """Return the value of our cookie; empty if there is none, or if the header has more than _COOKIES_BYTES_MAX characters."""
    found = ""
    if len(header) <= _COOKIES_BYTES_MAX:
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == COOKIE:
                found = value.strip()
    return found


def token_of(key: bytes) -> str:
    """Return the token in forms. It can't be computed without the key, and the key can't be computed from it."""
    return hmac.new(key, _TOKEN_PURPOSE, "sha256").hexdigest()[:_TOKEN_HEX_DIGITS]


def check_form(headers: Headers, form: Form, key: bytes) -> None:
    """Raise RequestRefused unless the form was sent from a page that was made for this key."""
    check_origin(headers)
    given = "".join(form.get(TOKEN_FIELD, ()))
    if not hmac.compare_digest(given.encode(errors="replace"), token_of(key).encode()):
        raise RequestRefused(
            INSUFFICIENT_SCOPE,
            f"the form has no valid field {TOKEN_FIELD!r}: load the page again, and send the form from there",
        )


def check_origin(headers: Headers) -> None:
    """Raise RequestRefused if the browser reports that a page of another site sent the request.

    `Sec-Fetch-Site` is the browser's own judgement. Browsers send it only over TLS and to their own machine. Without it,
    `Origin` is compared with `Host`.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise RequestRefused(
                INSUFFICIENT_SCOPE, f"the form was sent by a page of another site (Sec-Fetch-Site: {site[:20]})"
            )
        return
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise RequestRefused(
            INSUFFICIENT_SCOPE,
            f"a page of {origin[:100]} sent the form, and this is {headers.get('host', '')[:100]}: a proxy in between must pass"
            " the Host header as it is",
        )


def cookie_with(key: str, *, path: str, is_secure: bool) -> str:
    """Return the value of the Set-Cookie header that logs in; with an empty key, that logs out. The cookie ends with the
    browser."""
    age = "" if key else "; Max-Age=0"
    return f"{COOKIE}={key}; Path={path}; HttpOnly; SameSite=Strict{'; Secure' if is_secure else ''}{age}"


async def read_form(headers: Headers, receive: Receive, *, bytes_max: int, timeout_s: float) -> Form:
    """Return the fields of a form by name. Raises RequestRefused, and ClientDisconnected."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise RequestRefused(INVALID_PARAMETER, f"the Content-Type of a form must be {FORM_TYPE}")
    body = bytearray()
    more = True
    try:
        async with asyncio.timeout(timeout_s):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientDisconnected
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > bytes_max:
                    raise RequestRefused(
                        PAYLOAD_TOO_LARGE,
                        f"the form has more than {bytes_max} bytes (http.form_bytes_max): use the dlq commands for that entry",
                    )
    except TimeoutError:
        raise RequestRefused(REQUEST_TIMEOUT, f"the form was not whole within {timeout_s:g} s (http.body_timeout_s)") from None
    fields: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX)
    except ValueError as error:
        raise RequestRefused(INVALID_PARAMETER, f"the form can't be read: {error}") from None
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields
