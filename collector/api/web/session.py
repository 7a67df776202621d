"""Who asks for a web page, and whether a form that came was sent by that page.

A browser has its API key in a cookie, which the login form sets. Nothing is kept in the process, so every gateway knows every
browser, and a key that is revoked ends its sessions at once.

Invariants:
1. A form changes nothing unless it has the token that only a page for the same key contains, and unless the browser, where it
   says so, sent it from a page of this site (test_a_form_of_another_site_changes_nothing).
2. The cookie is out of reach of scripts, is sent from this site's pages only, and over TLS only where it was set over TLS
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
# Servers and proxies commonly take no more of a head.
_COOKIES_BYTES_MAX: Final = 8192

Headers = Mapping[str, str]
Form = Mapping[str, list[str]]


class Gone(Exception):
    """The client has closed its connection: nobody waits for an answer."""


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """By name; several of one name are one, with commas between, and cookies with semicolons."""
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in found else text
    return found


def came_over_tls(headers: Headers) -> bool:
    """Whether a proxy says that the browser came over TLS. Of several proxies the first says it."""
    return headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower() == "https"


def key_in(headers: Headers) -> bytes | None:
    """The key in a request: in a header, as the API takes it, or in the cookie; None: there is none."""
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
    """Return the value of our cookie; empty where there is none, or where the header is longer than browsers make it."""
    found = ""
    if len(header) <= _COOKIES_BYTES_MAX:
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == COOKIE:
                found = value.strip()
    return found


def token_of(key: bytes) -> str:
    """What forms contain. It can't be computed without the key, and the key can't be computed from it."""
    return hmac.new(key, _TOKEN_PURPOSE, "sha256").hexdigest()[:_TOKEN_HEX_DIGITS]


def check_form(headers: Headers, form: Form, key: bytes) -> None:
    """Raise RequestRefused unless the form was sent from a page that this key was shown."""
    check_origin(headers)
    given = "".join(form.get(TOKEN_FIELD, ()))
    if not hmac.compare_digest(given.encode(errors="replace"), token_of(key).encode()):
        raise RequestRefused(
            INSUFFICIENT_SCOPE,
            f"the form has no valid field {TOKEN_FIELD!r}: load the page again, and send the form from there",
        )


def check_origin(headers: Headers) -> None:
    """Raise RequestRefused where a browser says that another site's page sent the request.

    `Sec-Fetch-Site` is the browser's own judgement. It comes over TLS and from this machine only; else `Origin` is compared.
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
    """The Set-Cookie header that logs in; with an empty key, the one that logs out. It ends with the browser."""
    age = "" if key else "; Max-Age=0"
    return f"{COOKIE}={key}; Path={path}; HttpOnly; SameSite=Strict{'; Secure' if is_secure else ''}{age}"


async def read_form(headers: Headers, receive: Receive, *, bytes_max: int, timeout_s: float) -> Form:
    """The fields of a form by name. Raises RequestRefused, and Gone."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise RequestRefused(INVALID_PARAMETER, f"the Content-Type of a form must be {FORM_TYPE}")
    body = bytearray()
    more = True
    try:
        async with asyncio.timeout(timeout_s):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone
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
