"""A page over HTTP/1.1: one ASGI request and its answer.

Invariants:
1. Whatever the application does, there is one well-formed answer, or the connection ends
   (test_a_page_that_fails_is_500, test_a_page_that_stops_in_the_middle_ends_the_connection).
2. An answer with `connection: close` ends the connection, also if the rest of the body is still to come
   (test_an_application_may_close_the_connection).
"""

import asyncio
from http import HTTPStatus
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Scope

from collector.receivers.http.asgi_page import AsgiPage

log = structlog.get_logger(__name__)


def status_line(status: int) -> bytes:
    """Return the first line of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


class Http1Wire(Protocol):
    """The connection, as a page uses it."""

    async def write(self, data: bytes) -> None:
        """Write `data`, and wait until there is room for more."""

    def date_line(self) -> bytes: ...

    def resume_reading(self) -> None:
        """Note that the application has read all received bytes of the body."""


class Http1Page(AsgiPage):
    """A page. Await `show`, then read `keeps_alive`."""

    def __init__(self, scope: Scope, *, is_head: bool, takes_body: bool) -> None:
        super().__init__(scope, is_head=is_head, takes_body=takes_body)
        self.keeps_alive = False
        """Whether the connection stays open after the page."""
        self.closes = False
        """Whether the application has announced the end of the connection."""
        self._wire: Http1Wire
        self._keep_alive = False
        self._is_chunked = False

    async def show(self, app: ASGIApp, wire: Http1Wire, *, keep_alive: bool) -> None:
        """Run the application. Return when its answer is written."""
        self._wire = wire
        self._keep_alive = keep_alive
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._is_over = True  # by a stop that has waited long enough
            return
        except Exception:
            log.exception("the HTTP application failed")
        if not self._is_begun:
            await self._send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
            await self._send({"type": "http.response.body", "body": b""})
        elif self._is_over:
            self.keeps_alive = self._keep_alive
        self._end()

    def _on_read(self, size_bytes: int) -> None:  # noqa: ARG002  # HTTP/2's needs it
        self._wire.resume_reading()

    async def _send(self, message: Message) -> None:
        part = self._body_of(message)
        if part is None:
            return
        start, body, ends = part
        head = b"" if self._is_begun else self._begin(start)
        if self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if ends:
                body += b"0\r\n\r\n"
        self._is_over = ends
        if head or body:
            await self._wire.write(head + body)

    def _begin(self, start: Message) -> bytes:
        self._is_begun = True
        headers: list[tuple[bytes, bytes]] = [*start.get("headers", ())]
        names = {name.lower() for name, _ in headers}
        status: int = start["status"]
        if b"content-length" not in names and status not in (204, 304) and not self._is_head:
            if self._scope["http_version"] == "1.1":
                self._is_chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                self._keep_alive = False  # the end of the connection is the end of the answer
        self.closes = any(name.lower() == b"connection" and value.lower() == b"close" for name, value in headers)
        if self.closes:
            self._keep_alive = False
        elif not self._keep_alive:
            headers.append((b"connection", b"close"))
        lines = [status_line(status), self._wire.date_line()]
        lines += [b"%b: %b\r\n" % header for header in headers]
        return b"".join(lines) + b"\r\n"
