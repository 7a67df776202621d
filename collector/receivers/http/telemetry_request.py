"""One request that brings telemetry over HTTP, whichever server reads it: an *exchange*.

It knows nothing of connections. A server passes in what arrived, and learns from it what to send.

Invariants:
1. The head is judged before the body is read (test_an_announced_size_over_the_limit_is_refused_before_the_body).
2. Every byte reserved from the budget is released once (test_the_budget_is_held_until_the_answer,
   test_a_sender_that_goes_away_leaves_nothing_behind).
3. There is exactly one answer, in the protocol's own form, whatever happens (test_no_body_makes_a_5xx,
   test_no_head_makes_a_5xx).
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from time import perf_counter
from typing import Final, NamedTuple

from adapters.errors import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_CONTENT_ENCODING,
    UNSUPPORTED_MEDIA_TYPE,
    RequestRefused,
)
from collector.config.receivers import Http
from collector.ingest.pipeline import Input, Pipeline
from collector.ingest.produce import InFlight, InFlightShare
from collector.receivers.decompress import decompressed
from collector.receivers.responses import NATIVE, Answer, Dialect, Explain, ShuttingDown, log_if_defect
from collector.telemetry.instruments import Endpoint
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access, key_of
from collector.tenancy.identity import Caller

# Content codings by their names in the header, RFC 9110.
COMPRESSED: Final = {
    b"": "identity",
    b"identity": "identity",
    b"gzip": "gzip",
    b"x-gzip": "gzip",
    b"zstd": "zstd",
    b"deflate": "deflate",
    b"snappy": "snappy_of_any_format",
    b"x-snappy-framed": "snappy_of_any_format",
}
# Remote write always compresses: no header means snappy.
SNAPPY: Final = {b"": "snappy", b"snappy": "snappy"}

_IDENTITY: Final = "identity"
_MEDIA_TYPES_KEPT_MAX: Final = 32
_HEADER_SHOWN_BYTES_MAX: Final = 100
# What a request is counted as whose sender has gone before it was whole, as others count it.
_SENDER_GONE: Final = 499


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


class Head:
    """What decides of a request's head, gathered header by header."""

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

    def add(self, name: bytes, value: bytes) -> None:
        """`name` in lower case. A header that comes several times is one, with commas between (RFC 9110, 5.3)."""
        if name == b"content-type":
            if value == self.content_type:
                return  # a proxy has set what was there
            self.content_type = self.content_type + b", " + value if self.content_type else value
        elif name == b"content-length":
            self.content_length = int(value)  # digits alone: the servers have seen to that
            self.has_body = self.content_length > 0
        elif name == b"content-encoding":
            self.content_encoding = self.content_encoding + b", " + value if self.content_encoding else value
        elif name == b"transfer-encoding":
            self.has_body = True
        elif name == b"x-api-key":
            self.api_key = value if self.api_key is None else self.api_key + b", " + value
        elif name == b"authorization":
            self.authorization = value if self.authorization is None else self.authorization + b", " + value
        elif name == b"idempotency-key":
            self.idempotency_key = self.idempotency_key + b", " + value if self.idempotency_key else value
        elif name == b"expect":
            self.expects_continue = value.lower() == b"100-continue"


class Receiver:
    """Makes the exchanges of all HTTP servers, and has what they need."""

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
        """`routes`: what takes telemetry, by path."""
        self.pipeline: Final = pipeline
        self.in_flight: Final = in_flight
        self.metrics: Final = metrics
        self.settings: Final = settings
        self.access: Final = access
        self.explain: Final = explain
        self.clock: Final = clock
        self._routes: Final = {path: (route, metrics.http_endpoint(route.endpoint)) for path, route in routes.items()}
        self._routes.update({f"{path}/": found for path, found in self._routes.items()})
        self._no_route: Final = (Route("other", {}, otherwise=NATIVE), metrics.http_endpoint("other"))

    def takes(self, path: str) -> bool:
        """Return whether telemetry is taken there."""
        return path in self._routes

    def exchange(self, path: str, head: Head) -> "TelemetryRequest":
        """Return the request for this path. An unknown path gets a request that answers so."""
        route, endpoint = self._routes.get(path, self._no_route)
        return TelemetryRequest(self, route, endpoint, head)


class TelemetryRequest:
    """Use: `admit`, then `feed` whatever comes of the body, then `finish`, each only as long as there is no `answer`; at the
    end `completed`, or `disconnected` where nobody is left to hear it."""

    def __init__(self, receiver: Receiver, route: Route, endpoint: Endpoint, head: Head) -> None:
        self.head: Final = head
        self.answer: Answer | None = None
        self.gives_up: bool = False  # the rest of the body is not waited for
        self.body_bytes: int = 0  # as they came
        self._receiver: Final = receiver
        self._route: Final = route
        self._endpoint: Final = endpoint
        self._began: Final[float] = receiver.clock()
        self._dialect: Dialect = route.otherwise
        self._input: Input | None = None
        self._encoding: str = _IDENTITY
        self._caller: Caller | None = None
        self._share: InFlightShare | None = None
        self._held_bytes: int = 0
        self._first: bytes = b""
        self._rest: BytesIO | None = None  # what came after the first piece: a list could take many times what it holds

    def admit(self) -> None:
        """Decide by the head alone, so that a refusal is cheap."""
        try:
            self._admit()
        except Exception as error:  # noqa: BLE001  # whatever it is, its sender is answered, and a defect is logged
            self.refuse(error)

    def _admit(self) -> None:
        head, route, receiver = self.head, self._route, self._receiver
        format_ = route.format(head.content_type)
        if format_ is not None:
            self._dialect = format_.dialect
        if not route.formats:
            raise RequestRefused(NOT_FOUND, "there is no such route; see /docs")
        if head.method != "POST":
            raise RequestRefused(METHOD_NOT_ALLOWED, f"{head.method} is not for {route.endpoint}; POST is")
        if format_ is None:
            known = ", ".join(route.formats)
            raise RequestRefused(UNSUPPORTED_MEDIA_TYPE, f"Content-Type {value_text(head.content_type)} is not one of {known}")
        encoding = format_.encodings.get(head.content_encoding)
        if encoding is None:
            encoding = format_.encodings.get(head.content_encoding.strip().lower())
            if encoding is None:
                known = ", ".join(sorted({coding.decode() for coding in format_.encodings if coding}))
                raise RequestRefused(
                    UNSUPPORTED_CONTENT_ENCODING, f"Content-Encoding {value_text(head.content_encoding)} is not one of {known}"
                )
        caller = receiver.access.sender(key_of(head.api_key, head.authorization))
        announced = head.content_length
        # What it decompresses to is not known yet.
        receiver.pipeline.check(caller, announced if encoding == _IDENTITY else 0)
        share = receiver.in_flight.share(caller.tenant)
        body_bytes_max = receiver.settings.body_bytes_max
        if announced > body_bytes_max:
            raise RequestRefused(PAYLOAD_TOO_LARGE, f"the body is {announced} bytes; at most {body_bytes_max} are taken")
        share.check(announced)
        self._input = format_.input
        self._encoding = encoding
        self._caller = caller
        self._share = share

    def feed(self, piece: bytes) -> bool:
        """Take the next piece of the body. Return whether more is wanted; if not, there is an answer."""
        self.body_bytes += len(piece)
        try:
            self._hold(len(piece))
            body_bytes_max = self._receiver.settings.body_bytes_max
            if self.body_bytes > body_bytes_max:
                raise RequestRefused(
                    PAYLOAD_TOO_LARGE, f"the body is more than {body_bytes_max} bytes, which are taken at most"
                )
        except Exception as error:  # noqa: BLE001  # as above
            self.refuse(error)
            return False
        if not self._first:
            self._first = piece
        else:
            if self._rest is None:
                self._rest = BytesIO()
                self._rest.write(self._first)
            self._rest.write(piece)
        return True

    def timed_out(self) -> None:
        """The rest of the body did not come in time."""
        self.gives_up = True
        timeout_s = self._receiver.settings.body_timeout_s
        self.refuse(
            RequestRefused(
                REQUEST_TIMEOUT, f"{self.body_bytes} bytes of the body, and not its end, came within {timeout_s:g} s"
            )
        )

    async def finish(self) -> Answer:
        """The body is whole. Return when what is to be said of it is known: where it was accepted, it is durable."""
        try:
            assert self._input is not None
            assert self._caller is not None
            pipeline = self._receiver.pipeline
            body = self._first if self._rest is None else self._rest.getvalue()
            if self._encoding != _IDENTITY:
                bytes_max = self._receiver.settings.decompressed_bytes_max
                work = decompressed(
                    body,
                    self._encoding,
                    bytes_max,
                    hold=self._hold,
                    admit=partial(pipeline.check, self._caller),
                    tenant=self._caller.tenant,
                    threads=pipeline.large_bodies.decompressing,
                )
                body = await pipeline.charging_refusals(self._caller, work, self._cost)
            key = self.head.idempotency_key
            outcome = await pipeline.ingest(self._input, body, self._caller, self._hold_rows, key)
            self.answer = self._dialect.accepted(outcome)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above
            self.refuse(error)
        finally:
            self._release()
        assert self.answer is not None
        return self.answer

    def refuse(self, error: BaseException) -> None:
        """This is the answer."""
        if isinstance(error, asyncio.CancelledError):
            # Only a stop that has waited long enough cancels. The answer says that the request may be sent again.
            self.gives_up = True
            error = ShuttingDown("the collector stopped before the request was done")
        self._release()
        receiver = self._receiver
        refusal = receiver.explain(error)
        receiver.metrics.refused(refusal.reason)
        log_if_defect(error, refusal, self._route.endpoint)
        self.answer = self._dialect.refused(refusal)

    def completed(self) -> None:
        """Count the request: its answer was sent."""
        assert self.answer is not None
        self._endpoint.answered(self.answer.status, self._receiver.clock() - self._began, self.body_bytes)

    def disconnected(self) -> None:
        """Its sender is, before the request was whole."""
        self._release()
        self._endpoint.answered(_SENDER_GONE, self._receiver.clock() - self._began, self.body_bytes)

    def _hold(self, size_bytes: int) -> None:
        """Raises Overloaded."""
        assert self._share is not None
        self._share.reserve(size_bytes)
        self._held_bytes += size_bytes

    def _cost(self) -> int:
        """Return the bytes that arrived, plus those that were decompressed from them."""
        return self._held_bytes

    def _hold_rows(self, size_bytes: int) -> None:
        """Raises Overloaded."""
        assert self._share is not None
        self._held_bytes += self._share.reserve_all_that_fits(self._held_bytes, size_bytes)

    def _release(self) -> None:
        if self._held_bytes and self._share is not None:
            self._share.release(self._held_bytes)
            self._held_bytes = 0
        self._first = b""
        self._rest = None


def value_text(header: bytes) -> str:
    return repr(header[:_HEADER_SHOWN_BYTES_MAX].decode("latin-1")) if header else "(none)"
