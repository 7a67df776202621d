"""The HTTP application: a table of routes that take telemetry, and beside it the pages that describe and show the collector.

The law: the head of a request is judged before its body is read; every body has a limit and a deadline; whatever a request
holds of the budget is released; and a refused sender hears why, in its own protocol, before the connection may close.
Plain ASGI, and no more than that on the way of a request: a framework costs as much as all the rest of a small one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from io import BytesIO
from time import perf_counter
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.decompress import decompress
from adapters.errors import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_CONTENT_ENCODING,
    UNSUPPORTED_MEDIA_TYPE,
    RequestRefused,
)
from collector.config import Http
from collector.metrics import Endpoint, Metrics
from collector.pipeline import Input, Outcome, Pipeline
from collector.produce import InFlight, InFlightShare
from collector.receive.responses import NATIVE, Answer, Dialect, Explain, ShuttingDown, log_if_defect
from collector.tenancy.access import Access, key_of

# Content codings by their names in the header, RFC 9110.
COMPRESSED: Final = {b"": "identity", b"identity": "identity", b"gzip": "gzip", b"x-gzip": "gzip", b"zstd": "zstd"}
# Remote write always compresses: no header means snappy.
SNAPPY: Final = {b"": "snappy", b"snappy": "snappy"}

_MEDIA_TYPES_KEPT_MAX: Final = 32
_HEADER_SHOWN_BYTES_MAX: Final = 100


class Format(NamedTuple):
    """What a media type means on a route: who reads the body, and how the answer is written."""

    input: Input
    dialect: Dialect
    encodings: Mapping[bytes, str]


class Route:
    """One path that takes telemetry by POST.

    `formats` by media type, in lower case; where `parameter` is named, with that parameter if it was sent, as
    `application/x-protobuf;proto=x`. `otherwise` answers what has none of them.
    """

    def __init__(
        self, endpoint: str, formats: Mapping[str, Format], *, otherwise: Dialect, parameter: str | None = None
    ) -> None:
        self.endpoint: Final = endpoint
        self.formats: Final = formats
        self.otherwise: Final = otherwise
        self._parameter: Final = parameter
        self._seen: Final[dict[bytes, Format]] = {}

    def format(self, content_type: bytes) -> Format | None:
        """The format that a Content-Type header asks for."""
        format_ = self._seen.get(content_type)
        if format_ is None:
            format_ = self.formats.get(self._key(content_type))
            if format_ is not None and len(self._seen) < _MEDIA_TYPES_KEPT_MAX:
                self._seen[content_type] = format_
        return format_

    def _key(self, content_type: bytes) -> str:
        media_type, *parameters = content_type.decode("latin-1").lower().split(";")
        key = media_type.strip()
        if self._parameter is not None:
            for parameter in parameters:
                name, _, value = parameter.partition("=")
                if name.strip() == self._parameter:
                    value = value.strip().strip('"')
                    key = f"{key};{self._parameter}={value}"
        return key


class _SenderGone(Exception):
    """The connection closed before the body was complete: nobody is left to answer."""


class _Request:
    """One request on its way: what of its body has come, and what it holds of the budget."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.receive: Final = receive
        self.share: InFlightShare | None = None  # its tenant's, once something is held of it
        self.held_bytes = 0
        self.body_bytes = 0
        self.complete = False
        self.has_body = False
        self.expects_continue = False
        self.gives_up = False  # the rest of the body is not waited for
        self.content_length: int | None = None
        self.content_type = b""
        self.content_encoding = b""
        self.api_key: bytes | None = None
        self.authorization: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"content-type":
                self.content_type = self.content_type + b", " + value if self.content_type else value
            elif name == b"content-encoding":
                self.content_encoding = self.content_encoding + b", " + value if self.content_encoding else value
            elif name == b"content-length":
                self.content_length = int(value)  # digits alone: both servers have seen to that
                self.has_body = self.content_length > 0
            elif name == b"transfer-encoding":
                self.has_body = True
            elif name == b"x-api-key":
                self.api_key = value if self.api_key is None else self.api_key + b", " + value
            elif name == b"authorization":
                self.authorization = value if self.authorization is None else self.authorization + b", " + value
            elif name == b"expect":
                self.expects_continue = value.lower() == b"100-continue"

    def hold(self, share: InFlightShare, size_bytes: int) -> None:
        """Raises Overloaded."""
        share.reserve(size_bytes)
        self.share = share
        self.held_bytes += size_bytes

    def release(self) -> None:
        if self.share is not None:
            self.share.release(self.held_bytes)
            self.held_bytes = 0

    async def chunk(self) -> bytes:
        """The next piece of the body. Raises _SenderGone."""
        message = await self.receive()
        if message["type"] != "http.request":
            raise _SenderGone
        self.expects_continue = False  # it was told to go on
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        self.body_bytes += len(chunk)
        return chunk


class HttpApplication:
    """The ASGI application of both HTTP ports.

    `routes`: what takes telemetry, by path. `pages`: an ASGI application for `page_paths` (and what is below those that end
    in a slash). Everything else is answered 404.
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
        self._pipeline: Final = pipeline
        self._in_flight: Final = in_flight
        self._metrics: Final = metrics
        self._settings: Final = settings
        self._access: Final = access
        self._explain: Final = explain
        self._clock: Final = clock
        self._routes: Final = {path: (route, metrics.http_endpoint(route.endpoint)) for path, route in routes.items()}
        self._pages: Final = pages
        self._page_trees: Final = tuple(path for path in page_paths if path.endswith("/"))
        self._page_endpoints: Final = {path: metrics.http_endpoint(path) for path in page_paths}
        self._no_route: Final = Route("other", {}, otherwise=NATIVE)
        self._no_endpoint: Final = metrics.http_endpoint("other")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        found = self._routes.get(scope["path"])
        if found is not None:
            await self._receive(*found, scope, receive, send)
            return
        page = self._page_endpoint(scope["path"])
        if page is not None:
            await self._show(page, scope, receive, send)
        else:
            await self._receive(self._no_route, self._no_endpoint, scope, receive, send)

    async def _receive(self, route: Route, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock()
        request = _Request(scope, receive)
        code = 499  # nobody left to answer, as others count it
        try:
            answer = await self._answer(route, scope, request)
            code = answer.status
            await self._send(answer, request, send)
        except _SenderGone:
            pass
        finally:
            endpoint.answered(code, self._clock() - began, request.body_bytes)

    async def _answer(self, route: Route, scope: Scope, request: _Request) -> Answer:
        format_ = route.format(request.content_type)
        dialect = route.otherwise if format_ is None else format_.dialect
        try:
            if route is self._no_route:
                raise RequestRefused(NOT_FOUND, "there is no such route; see /docs")
            if scope["method"] != "POST":
                raise RequestRefused(METHOD_NOT_ALLOWED, f"{scope['method']} is not for {route.endpoint}; POST is")
            if format_ is None:
                known = ", ".join(route.formats)
                raise RequestRefused(
                    UNSUPPORTED_MEDIA_TYPE, f"Content-Type {_shown(request.content_type)} is not one of {known}"
                )
            outcome = await self._take(format_, request)
            return dialect.accepted(outcome)
        except _SenderGone:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # its sender is answered, and a defect is logged
            if isinstance(error, asyncio.CancelledError):
                # Only a stop that has waited long enough cancels. Whoever asked hears that it may ask again.
                request.gives_up = True
                error = ShuttingDown("the collector stopped before the request was done")
            refusal = self._explain(error)
            self._metrics.refused(refusal.reason)
            log_if_defect(error, refusal, route.endpoint)
            return dialect.refused(refusal)
        finally:
            request.release()

    async def _take(self, format_: Format, request: _Request) -> Outcome:
        settings = self._settings
        encoding = format_.encodings.get(request.content_encoding)
        if encoding is None:
            encoding = format_.encodings.get(request.content_encoding.strip().lower())
            if encoding is None:
                known = ", ".join(sorted({*format_.encodings.values()}))
                raise RequestRefused(
                    UNSUPPORTED_CONTENT_ENCODING, f"Content-Encoding {_shown(request.content_encoding)} is not one of {known}"
                )
        caller = self._access.sender(key_of(request.api_key, request.authorization))
        announced = request.content_length or 0
        # Before it is read, so that being refused is cheap. What it decompresses to is not known yet.
        self._pipeline.check(caller, announced if encoding == "identity" else 0)
        share = self._in_flight.share(caller.tenant)
        if announced > settings.body_bytes_max:
            raise RequestRefused(
                PAYLOAD_TOO_LARGE, f"the body is {announced} bytes; at most {settings.body_bytes_max} are taken"
            )
        share.check(announced)
        body = await self._read(request, share)
        if encoding != "identity":
            body = decompress(body, encoding, settings.decompressed_bytes_max)
            request.hold(share, len(body))
        return await self._pipeline.ingest(format_.input, body, caller)

    async def _read(self, request: _Request, share: InFlightShare) -> bytes:
        """The whole body, as sent. Raises RequestRefused, Overloaded, _SenderGone."""
        bytes_max = self._settings.body_bytes_max
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                chunk = await request.chunk()
                request.hold(share, len(chunk))
                if request.complete and len(chunk) <= bytes_max:
                    return chunk
                body = BytesIO()  # a list of chunks could take many times what they hold
                body.write(chunk)
                while not request.complete and request.body_bytes <= bytes_max:
                    chunk = await request.chunk()
                    request.hold(share, len(chunk))
                    body.write(chunk)
        except TimeoutError:
            request.gives_up = True
            raise RequestRefused(
                REQUEST_TIMEOUT,
                f"{request.body_bytes} bytes of the body, and not its end, came within {self._settings.body_timeout_s:g} s",
            ) from None
        if request.body_bytes > bytes_max:
            raise RequestRefused(PAYLOAD_TOO_LARGE, f"the body is more than {bytes_max} bytes, which are taken at most")
        return body.getvalue()

    async def _send(self, answer: Answer, request: _Request, send: Send) -> None:
        headers = [*answer.headers]
        if answer.content_type:
            headers.append((b"content-type", answer.content_type))
        if answer.status != 204:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        unread = request.has_body and not request.complete
        # A sender that was not told to go on may send its next request, or this one's body: only closing tells them apart.
        closes = unread and (request.expects_continue or request.gives_up)
        if closes:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if unread and not closes:
            # Answered, the rest of the body may still pass: closing on a sender that writes resets the connection, and
            # takes the answer with it.
            await send({"type": "http.response.body", "body": answer.body, "more_body": True})
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):  # cancelled: at the end of a stop
                async with asyncio.timeout(self._settings.body_timeout_s):
                    while not request.complete:
                        await request.chunk()
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": answer.body})

    def _page_endpoint(self, path: str) -> Endpoint | None:
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
            scope = {**scope, "method": "GET"}  # the server, which knows better, leaves the body out

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._pages(scope, receive, watched)
        finally:
            endpoint.answered(code, self._clock() - began, 0)


def _shown(header: bytes) -> str:
    return repr(header[:_HEADER_SHOWN_BYTES_MAX].decode("latin-1")) if header else "(none)"
