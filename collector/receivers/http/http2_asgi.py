"""A page over HTTP/2: one ASGI request, and its answer, written as the client reads it.

Invariants:
1. Whatever the application does, there is one whole answer, or the stream is reset (test_an_application_that_fails_is_500).
2. The application waits as long as the client reads nothing, and continues when no client wants the page any more
   (test_an_answer_that_nobody_reads_ends).
"""

import asyncio
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Scope

from collector.http2.headers import OF_CONNECTIONS
from collector.receivers.http.asgi_page import AsgiPage

log = structlog.get_logger(__name__)


class Http2Wire(Protocol):
    """The stream, as a page uses it."""

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]], *, end: bool) -> None: ...

    async def write_body(self, data: bytes, *, end: bool) -> None:
        """Send `data`, and wait until the client has taken it, or does not want it any more."""

    def resume_reading(self, size_bytes: int) -> None:
        """Note that the application has read `size_bytes` of the body, so that as many more may come."""


class Http2Page(AsgiPage):
    """A page. Await `show`, and call `disconnected` when the client does not want it any more."""

    def __init__(self, scope: Scope, *, is_head: bool, takes_body: bool) -> None:
        super().__init__(scope, is_head=is_head, takes_body=takes_body)
        self._wire: Http2Wire

    async def show(self, app: ASGIApp, wire: Http2Wire) -> None:
        """Run the application. Return when the client has taken the whole answer, or the rest will not be sent."""
        self._wire = wire
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            return  # by a stop that has waited long enough
        except Exception:
            log.exception("the HTTP application failed")
        if not self._is_begun:
            self._is_over = True
            wire.write_head(500, [(b"content-length", b"0")], end=True)
        self._end()

    def _on_read(self, size_bytes: int) -> None:
        self._wire.resume_reading(size_bytes)

    async def _send(self, message: Message) -> None:
        part = self._body_of(message)
        if part is None:
            return
        start, body, ends = part
        self._is_over = ends
        if not self._is_begun:
            self._is_begun = True
            headers = [header for header in start.get("headers", ()) if header[0] not in OF_CONNECTIONS]
            self._wire.write_head(start["status"], headers, end=ends and not body)
            if ends and not body:
                return
        if body or ends:
            await self._wire.write_body(body, end=ends)
