"""The HTTP application: telemetry requests, and the pages that describe and show the collector.

This is plain ASGI, for HTTP/2, for hypercorn's HTTP/1.1, and for the pages. Our own HTTP/1.1 calls the receiver directly.

Invariants:
1. Every body has a deadline (test_a_body_that_does_not_come_in_time_is_408).
2. A refused sender gets the reason, in its own protocol, before the connection may be closed
   (test_a_sender_that_is_refused_early_hears_it_while_it_still_sends).
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collector.config.receivers import Http
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight
from collector.receivers.http.page_gate import PageGate
from collector.receivers.http.telemetry_request import Head, HttpReceiver, HttpRequest, Route
from collector.receivers.refusals import Explain
from collector.receivers.responses import Answer
from collector.receivers.sender_log import log_page
from collector.telemetry.instruments import Endpoint
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access


class _SenderGone(Exception):
    """The connection closed before the body was complete, so no client is left to answer."""


class HttpApplication:
    """The ASGI application of both HTTP ports.

    `routes` take telemetry, and are by path. `pages` is an ASGI application for `page_paths`, and for all paths below those
    that end in a slash, except "/" itself. Everything else is answered 404.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        metrics: Metrics,
        settings: Http,
        *,
        routes: Mapping[str, Route],
        pages: ASGIApp,
        page_paths: frozenset[str],
        access: Access,
        explain: Explain,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.receiver: Final = HttpReceiver(
            pipeline, in_flight, metrics, settings, routes=routes, access=access, explain=explain, clock=clock
        )
        self._settings: Final = settings
        self._clock: Final = clock
        self._pages: Final = PageGate(pages, settings, metrics, explain)
        self._prefix: Final = settings.path_prefix
        self._page_trees: Final = tuple(path for path in page_paths if path.endswith("/") and path != "/")
        self._page_endpoints: Final = {path: metrics.http_endpoint(path) for path in page_paths}

    def is_page(self, path: str) -> bool:
        """Return whether the path is that of a page."""
        return self._page_endpoint(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        path = scope["path"]
        page = None if self.receiver.takes(path) else self._page_endpoint(path)
        if page is not None:
            if self._has_prefix(path):
                scope = {**scope, "path": path[len(self._prefix) :], "root_path": self._prefix}
            await self._show(page, scope, receive, send)
        else:
            await self._receive(scope, receive, send)

    async def _receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = Head(scope["method"])
        head.query = scope["query_string"]
        for name, value in scope["headers"]:
            head.add(name, value)
        request = self.receiver.new_request(scope["path"], head)
        body = _Body(receive, head)
        request.admit()
        try:
            if request.answer is None:
                await self._read(request, body)
            if request.answer is None:
                await request.finish()
            assert request.answer is not None
            await self._send(request.answer, request, body, send)
        except _SenderGone:
            pass
        if request.answer is None:
            request.disconnected()
        else:
            request.completed()

    async def _read(self, request: HttpRequest, body: "_Body") -> None:
        """Read until the body is whole, or answered. Raises _SenderGone."""
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while not body.complete and request.answer is None:
                    request.feed(await body.piece())
        except TimeoutError:
            request.timed_out(self._settings.body_timeout_s)
        except asyncio.CancelledError as error:
            request.refuse(error)

    async def _send(self, answer: Answer, request: HttpRequest, body: "_Body", send: Send) -> None:
        headers = [*answer.headers]
        if answer.content_type:
            headers.append((b"content-type", answer.content_type))
        if answer.status != 204:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        unread = request.head.has_body and not body.complete
        # A sender without a 100 Continue may send its next request, or this one's body. Closing rules out a mix-up.
        closes = unread and (request.head.expects_continue or request.is_abandoned)
        if closes:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if unread and not closes:
            # After the answer the rest of the body may still pass: closing while the sender writes resets the connection,
            # and the answer is lost.
            await send({"type": "http.response.body", "body": answer.body, "more_body": True})
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):  # cancelled: at the end of a stop
                async with asyncio.timeout(self._settings.body_timeout_s):
                    while not body.complete:
                        await body.piece()
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": answer.body})

    def _has_prefix(self, path: str) -> bool:
        return bool(self._prefix) and path.startswith(f"{self._prefix}/")

    def _page_endpoint(self, path: str) -> Endpoint | None:
        if self._has_prefix(path):
            path = path[len(self._prefix) :]
        endpoint = self._page_endpoints.get(path)
        if endpoint is None:
            for tree in self._page_trees:
                if path.startswith(tree):
                    return self._page_endpoints[tree]
        return endpoint

    async def _show(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock()
        code = 500
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server knows the method, and leaves the body out

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._pages(scope, receive, watched)
        finally:
            seconds = self._clock() - began
            endpoint.answered(code, seconds, 0)
            if self.receiver.logs_requests:
                log_page(scope["path"], scope["method"], code, seconds)


class _Body:
    """The body of a request, piece by piece."""

    def __init__(self, receive: Receive, head: Head) -> None:
        self._receive: Final = receive
        self._head: Final = head
        self.complete = False

    async def piece(self) -> bytes:
        """Return the next piece. Raises _SenderGone."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise _SenderGone
        self._head.expects_continue = False  # 100 Continue was sent
        self.complete = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece
