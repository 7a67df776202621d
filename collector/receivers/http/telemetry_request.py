"""A request with telemetry over HTTP, whichever server reads it. Its life cycle is in receivers/request.py.

Invariants:
1. The head is checked before the body is read (test_an_announced_size_over_the_limit_is_refused_before_the_body).
2. The answer has the form of the protocol of its route (test_responses.py).
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final, NamedTuple

from adapters.codec.growing_bytes import GrowingBytes
from adapters.errors import (
    INVALID_PARAMETER,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_CONTENT_ENCODING,
    UNSUPPORTED_MEDIA_TYPE,
    RequestRefused,
)
from collector.config.receivers import Http
from collector.ingest.pipeline import Outcome, Pipeline
from collector.ingest.produce import InFlight
from collector.ingest.reading import Input
from collector.receivers.http.cors import cors_of
from collector.receivers.http.targets import VALUE_BYTES_MAX
from collector.receivers.refusals import Explain, Refusal
from collector.receivers.request import Receiver, TelemetryRequest
from collector.receivers.responses import NATIVE, Answer, Dialect, grpc_elsewhere
from collector.receivers.transport.fields import joined
from collector.receivers.unfinished_bodies import ConnectionBodies, UnfinishedBodies
from collector.telemetry.instruments import Endpoint
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access, key_in_query, key_of

_MEDIA_TYPES_KEPT_MAX: Final = 32
_HEADER_SHOWN_BYTES_MAX: Final = 100
# The code that counts a request whose sender disconnected before it was whole. Other servers use the same code.
_SENDER_GONE: Final = 499
_GRPC: Final = b"application/grpc"
_GRPC_PORT: Final = 4317


class Format(NamedTuple):
    """The meaning of a media type on a route: the input of its bodies, the dialect of its answers, and its encodings."""

    input: Input
    dialect: Dialect
    encodings: Mapping[bytes, str]


class Route:
    """One path that takes telemetry by POST.

    `formats` are by media type. If `parameter` is set, the key includes that parameter if it was sent, as in
    `application/x-protobuf;proto=x`. `otherwise` answers requests of any other media type.
    """

    def __init__(
        self, endpoint: str, formats: Mapping[str, Format], *, otherwise: Dialect, parameter: str | None = None
    ) -> None:
        self.endpoint: Final = endpoint
        self.formats: Final = {media_type.lower(): format_ for media_type, format_ in formats.items()}
        self.media_types: Final = ", ".join(media_type for media_type in formats if media_type)
        self.otherwise: Final = otherwise
        self._parameter: Final = parameter
        self._seen: Final[dict[bytes, Format]] = {}

    def format(self, content_type: bytes) -> Format | None:
        """Return the format of a Content-Type header; None if it is unknown, or too long to be read."""
        format_ = self._seen.get(content_type)
        if format_ is None:
            if len(content_type) > VALUE_BYTES_MAX:
                return None
            format_ = self.formats.get(self._key(content_type))
            if format_ is not None and len(self._seen) < _MEDIA_TYPES_KEPT_MAX:
                self._seen[content_type] = format_
        return format_

    def _key(self, content_type: bytes) -> str:
        """Return the key of the format. If several different types were sent, it is a key that no format has."""
        keys = [self._key_of(each) for each in content_type.decode("latin-1").lower().split(",")]
        return keys[0] if keys.count(keys[0]) == len(keys) else ", ".join(keys)

    def _key_of(self, content_type: str) -> str:
        media_type, *parameters = content_type.split(";")
        key = media_type.strip()
        if self._parameter is not None:
            for parameter in parameters:
                name, _, value = parameter.partition("=")
                if name.strip() == self._parameter:
                    value = value.strip().strip('"')
                    key = f"{key};{self._parameter}={value}"
        return key


class Head:
    """The parts of a request's head that matter, gathered header by header."""

    def __init__(self, method: str) -> None:
        self.method: Final = method
        self.has_body: bool = False
        self.expects_continue: bool = False
        self.content_length: int = 0
        self.content_type: bytes = b""
        self.content_encoding: bytes = b""
        self.api_key: bytes | None = None
        self.authorization: bytes | None = None
        self.idempotency_key: bytes = b""
        self.query: bytes = b""  # of the target
        # A browser's headers about the page that sends. The last three are those of a preflight request.
        self.origin: bytes = b""
        self.requested_method: bytes = b""
        self.requested_headers: bytes = b""
        self.asks_private_network: bool = False

    def add(self, name: bytes, value: bytes) -> None:
        """Add a header; `name` is in lower case. Repeated headers become one, with commas between (RFC 9110, 5.3)."""
        if name == b"content-type":
            if value == self.content_type:
                return  # a proxy has added the same header
            self.content_type = joined(self.content_type or None, value)
        elif name == b"content-length":
            self.content_length = int(value)  # the servers have checked that it has only digits
            self.has_body = self.content_length > 0
        elif name == b"content-encoding":
            self.content_encoding = joined(self.content_encoding or None, value)
        elif name == b"transfer-encoding":
            self.has_body = True
        elif name == b"x-api-key":
            self.api_key = joined(self.api_key, value)
        elif name == b"authorization":
            self.authorization = joined(self.authorization, value)
        elif name == b"idempotency-key":
            self.idempotency_key = joined(self.idempotency_key or None, value)
        elif name == b"expect":
            self.expects_continue = self.expects_continue or asks_for_continue(value)
        elif name == b"origin":
            self.origin = joined(self.origin or None, value)
        elif name == b"access-control-request-method":
            self.requested_method = value
        elif name == b"access-control-request-headers":
            self.requested_headers = self.requested_headers + b"," + value if self.requested_headers else value
        elif name == b"access-control-request-private-network":
            self.asks_private_network = value == b"true"


class HttpReceiver(Receiver):
    """Makes the requests of all HTTP servers."""

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        metrics: Metrics,
        settings: Http,
        *,
        routes: Mapping[str, Route],
        access: Access,
        explain: Explain,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`routes` take telemetry, and are by path."""
        super().__init__(
            pipeline,
            in_flight,
            metrics,
            body_bytes_max=settings.body_bytes_max,
            body_bytes_setting="http.body_bytes_max",
            decompressed_bytes_max=settings.decompressed_bytes_max,
            body_timeout_s=settings.body_timeout_s,
            access=access,
            explain=explain,
            clock=clock,
            unfinished=UnfinishedBodies(settings),
        )
        self.cors: Final = cors_of(settings)
        self.takes_query_key: Final[bool] = settings.query_key
        self.grpc_places: str = f"port {_GRPC_PORT}"
        """The ports for gRPC, for the answer to gRPC clients."""
        self._routes: Final = {path: (route, metrics.http_endpoint(route.endpoint)) for path, route in routes.items()}
        # Some endpoints are configured with a slash at their end, or get a further slash before their path.
        self._routes.update({f"{path}/": found for path, found in self._routes.items()})
        self._routes.update({f"/{path}": found for path, found in self._routes.items()})
        if settings.path_prefix:
            self._routes.update({f"{settings.path_prefix}{path}": found for path, found in self._routes.items()})
        self._no_route: Final = (Route("other", {}, otherwise=NATIVE), metrics.http_endpoint("other"))

    def takes(self, path: str) -> bool:
        """Return whether the path takes telemetry."""
        return path in self._routes

    def new_request(self, path: str, head: Head, bodies: ConnectionBodies | None = None) -> "HttpRequest":
        """Return the request for this path. For an unknown path the request is refused. `bodies` are those of its connection;
        None if the connection has one request at a time."""
        route, endpoint = self._routes.get(path, self._no_route)
        return HttpRequest(self, route, endpoint, head, bodies or ConnectionBodies(self.unfinished))


class HttpRequest(TelemetryRequest):
    """A request over HTTP/1.1 or HTTP/2. `answer` is None until there is an answer."""

    def __init__(self, receiver: HttpReceiver, route: Route, endpoint: Endpoint, head: Head, bodies: ConnectionBodies) -> None:
        super().__init__(receiver, endpoint, route.endpoint, "body", bodies)
        self.head: Final = head
        self.answer: Answer | None = None
        self._http: Final = receiver
        self._route: Final = route
        self._dialect: Dialect = route.otherwise
        self._first: bytes = b""
        self._rest: GrowingBytes | None = None  # for several pieces: a list could take many times their memory

    def _admit(self) -> None:
        head, route, receiver = self.head, self._route, self._http
        if receiver.cors is not None and head.method == "OPTIONS" and head.origin and head.requested_method:
            self.answer = receiver.cors.preflight(
                head.origin, head.requested_headers, asks_private_network=head.asks_private_network
            )
            return
        if head.content_type.startswith(_GRPC):
            receiver.metrics.refused(UNSUPPORTED_MEDIA_TYPE)
            self.answer = grpc_elsewhere(receiver.grpc_places)
            return
        format_ = route.format(head.content_type)
        if format_ is not None:
            self._dialect = format_.dialect
        if not route.formats:
            raise RequestRefused(NOT_FOUND, "there is no such route; see /docs")
        if head.method != "POST":
            raise RequestRefused(METHOD_NOT_ALLOWED, f"{head.method} is not allowed for {route.endpoint}: use POST")
        key = key_of(head.api_key, head.authorization)
        if key is None and head.query and receiver.takes_query_key:
            if len(head.query) > VALUE_BYTES_MAX:
                raise RequestRefused(
                    INVALID_PARAMETER,
                    f"the query of the address is {len(head.query)} bytes; at most {VALUE_BYTES_MAX} are searched for a key",
                )
            key = key_in_query(head.query)
        self._identify(key, head.origin)
        if format_ is None:
            self._input = next(iter(route.formats.values())).input
            self._refuse_at_end(
                RequestRefused(
                    UNSUPPORTED_MEDIA_TYPE, f"Content-Type {value_text(head.content_type)} is not one of {route.media_types}"
                )
            )
            return
        self._input = format_.input
        encoding = format_.encodings.get(head.content_encoding)
        if encoding is None:
            encoding = format_.encodings.get(head.content_encoding.strip().lower())
            if encoding is None:
                known = ", ".join(sorted({coding.decode() for coding in format_.encodings if coding}))
                self._refuse_at_end(
                    RequestRefused(
                        UNSUPPORTED_CONTENT_ENCODING,
                        f"Content-Encoding {value_text(head.content_encoding)} is not one of {known}",
                    )
                )
                return
        self._encoding = encoding
        self._idempotency_key = head.idempotency_key
        # The decompressed size is not known yet. It counts later, if it is larger.
        self._expect(head.content_length, head.content_length)
        self._begin_body()

    def _refuse_at_end(self, refusal: RequestRefused) -> None:
        """Take the body before the refusal, unless its client waits for 100 Continue. Raises RequestRefused."""
        if self.head.expects_continue:
            raise refusal
        self._refuse_when_whole(refusal, self.head.content_length)

    def _take(self, piece: bytes) -> None:
        self.body_bytes += len(piece)
        self._hold(len(piece))
        body_bytes_max = self._receiver.body_bytes_max
        if self.body_bytes > body_bytes_max:
            raise RequestRefused(
                PAYLOAD_TOO_LARGE,
                f"the body is more than {body_bytes_max} bytes, the most that are taken ({self._receiver.body_bytes_setting})",
            )
        if not self._first:
            self._first = piece
        else:
            if self._rest is None:
                self._rest = GrowingBytes(body_bytes_max)
                self._rest.write(self._first)
            self._rest.write(piece)

    def _body(self) -> bytes:
        return self._first if self._rest is None else self._rest.value()

    def _accept(self, outcome: Outcome) -> None:
        self.answer = self._with_cors_headers(self._dialect.accepted(outcome))

    def _reject(self, refusal: Refusal) -> None:
        self.answer = self._with_cors_headers(self._dialect.refused(refusal))

    def _with_cors_headers(self, answer: Answer) -> Answer:
        """Return the answer with the headers by which an allowed page can read it."""
        cors = self._http.cors
        if cors is None or not self.head.origin:
            return answer
        return answer.with_headers(cors.headers(self.head.origin))

    def completed(self) -> None:
        assert self.answer is not None
        self._count(self.answer.status, self.body_bytes)

    def disconnected(self) -> None:
        self._release()
        self._count(_SENDER_GONE, self.body_bytes)

    def _release(self) -> None:
        super()._release()
        self._first = b""
        self._rest = None


def asks_for_continue(expectation: bytes) -> bool:
    """Return whether an Expect header asks for 100 Continue, alone or with other values (RFC 9110, 10.1.1)."""
    return b"100-continue" in expectation.lower()


def value_text(header: bytes) -> str:
    """Return the beginning of a header's value in quotes, for messages, and its length if it is cut."""
    if not header:
        return "(none)"
    shown = repr(header[:_HEADER_SHOWN_BYTES_MAX].decode("latin-1"))
    return shown if len(header) <= _HEADER_SHOWN_BYTES_MAX else f"{shown}… ({len(header)} bytes)"
