"""One gRPC call that brings telemetry: the counterpart of `TelemetryRequest` over HTTP.

It knows nothing of frames. Its connection passes in what arrived, and learns from it what to send.

The head is judged before the message is read.

Invariants:
1. Every byte reserved from the budget is released once (test_what_is_cancelled_before_it_is_whole_is_nothing).
2. There is exactly one answer, whatever happens (test_no_body_makes_a_server_error).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from mypy_extensions import i64

from adapters.errors import (
    INVALID_COMPRESSION,
    INVALID_PARAMETER,
    INVALID_PROTOBUF,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_CONTENT_ENCODING,
    RequestRefused,
)
from collector.config.receivers import Grpc
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight, InFlightShare, Overloaded
from collector.receivers.decompress import decompressed
from collector.receivers.grpc.services import Method
from collector.receivers.grpc.status import CANCELLED, NAMES, ok_trailers, refused
from collector.receivers.grpc.stream_call import PREFIX_BYTES
from collector.receivers.responses import Explain, ShuttingDown, log_if_defect
from collector.receivers.transport.http2_connection import Sending
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access, key_of
from collector.tenancy.identity import Caller

_IDENTITY: Final = "identity"
# By their names in the header, PROTOCOL-HTTP2.md; zstd's is what Go's clients send.
_ENCODINGS: Final = {
    b"": "identity",
    b"identity": "identity",
    b"gzip": "gzip",
    b"deflate": "deflate",
    b"zstd": "zstd",
    b"snappy": "snappy_of_any_format",
}
_SHOWN_BYTES_MAX: Final = 100
_TIMEOUT_BYTES_MAX: Final = 9
_TIMEOUT_UNITS: Final = b"HMSmun"


class CallHead:
    """What decides of a call's head. Many calls have the same."""

    def __init__(self, method: Method, headers: list[tuple[bytes, bytes]]) -> None:
        self.method: Final = method
        self.encoding: str | None = _IDENTITY
        self.encoding_shown: bytes = b""
        self.has_odd_timeout: bool = False
        self.timeout_shown: bytes = b""
        self.key: bytes | None = None
        self.idempotency_key: bytes = b""
        encoding: bytes | None = None
        timeout: bytes | None = None
        api_key: bytes | None = None
        authorization: bytes | None = None
        for name, value in headers:
            if name == b"x-api-key":
                api_key = value if api_key is None else api_key + b", " + value
            elif name == b"authorization":
                authorization = value if authorization is None else authorization + b", " + value
            elif name == b"idempotency-key":
                self.idempotency_key = self.idempotency_key + b", " + value if self.idempotency_key else value
            elif name == b"grpc-encoding":
                encoding = value if encoding is None else encoding + b", " + value
            elif name == b"grpc-timeout":
                timeout = value if timeout is None else timeout + b", " + value
        if encoding is not None:
            # One that comes several times is one that nobody knows.
            self.encoding = _ENCODINGS.get(encoding)
            self.encoding_shown = encoding[:_SHOWN_BYTES_MAX]
        if timeout is not None and not _is_timeout(timeout):
            self.has_odd_timeout = True
            self.timeout_shown = timeout[:_SHOWN_BYTES_MAX]
        self.key = key_of(api_key, authorization)


def _is_timeout(value: bytes) -> bool:
    """PROTOCOL-HTTP2.md: up to 8 digits and a unit."""
    return 1 < len(value) <= _TIMEOUT_BYTES_MAX and value[:-1].isdigit() and value[-1:] in _TIMEOUT_UNITS


class Calls:
    """What all calls of a server need."""

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        metrics: Metrics,
        settings: Grpc,
        *,
        access: Access,
        explain: Explain,
        clock: Callable[[], float],
    ) -> None:
        self.pipeline: Final = pipeline
        self.in_flight: Final = in_flight
        self.metrics: Final = metrics
        self.access: Final = access
        self.explain: Final = explain
        self.clock: Final = clock
        self.message_bytes_max: i64 = settings.message_bytes_max
        self.body_timeout_s: Final = settings.body_timeout_s
        self.running_max: Final = settings.concurrent_requests_max
        self.running: int = 0


class Call(Sending):
    """Use: `admit`, then `feed` whatever comes of the message, then `finish`, each only as long as there is no `answer`; at the
    end `completed`, or `disconnected` where nobody is left to hear it."""

    def __init__(self, calls: Calls, stream_id: int, head: CallHead, began: float) -> None:
        super().__init__(stream_id, began)
        self.is_accepted: bool = False
        self.has_answer: bool = False
        self.body: bytes = b""  # of the answer; nothing where it was refused
        self.said: bytes = b""  # the answer's trailers
        self._calls: Final = calls
        self._head: Final = head
        self._clock_began: Final[float] = calls.clock()
        self._code: int = 0
        self._caller: Caller | None = None
        self._share: InFlightShare | None = None
        self._held_bytes: i64 = 0
        self._body_bytes: i64 = 0  # of the request, decompressed where it came so far
        self._prefix: bytes = b""
        self._has_prefix: bool = False
        self._is_compressed: bool = False
        self._missing_bytes: i64 = 0  # of the message
        self._pieces: list[bytes] = []  # none of them is small: the frames of small ones are not for nothing

    def admit(self) -> bool:
        """Decide by the head alone, so that a refusal is cheap. Return whether the message is wanted."""
        try:
            calls, head = self._calls, self._head
            if head.encoding is None:
                shown = head.encoding_shown.decode("latin-1")
                raise RequestRefused(
                    UNSUPPORTED_CONTENT_ENCODING, f"grpc-encoding {shown!r} is not one of identity, deflate, gzip, snappy, zstd"
                )
            if head.has_odd_timeout:
                shown = head.timeout_shown.decode("latin-1")
                raise RequestRefused(
                    INVALID_PARAMETER, f"grpc-timeout {shown!r} is not 1 to 8 digits and one of H, M, S, m, u, n, as 10S"
                )
            caller = calls.access.sender(head.key)
            calls.pipeline.check(caller, 0)
            self._caller = caller
            self._share = calls.in_flight.share(caller.tenant)
        except Exception as error:  # noqa: BLE001  # whatever it is, its sender is answered, and a defect is logged
            self.refuse(error)
            return False
        return True

    def feed(self, piece: bytes) -> bool:
        """Take the next piece of the frames' contents. Return whether more is wanted; if not, there is an answer."""
        try:
            self._take(piece)
        except Exception as error:  # noqa: BLE001  # as above
            self.refuse(error)
            return False
        return True

    def _take(self, piece: bytes) -> None:
        """Raises RequestRefused, Limited, Overloaded."""
        if not self._has_prefix:
            if self._prefix:
                piece = self._prefix + piece
            if len(piece) < PREFIX_BYTES:
                self._prefix = piece
                return
            self._read_prefix(piece)
            piece = piece[PREFIX_BYTES:]
        size: i64 = len(piece)
        assert self._share is not None
        self._share.reserve(int(size))
        self._held_bytes += size
        self._body_bytes += size
        self._missing_bytes -= size
        if self._missing_bytes < 0:
            raise RequestRefused(INVALID_PROTOBUF, f"{-self._missing_bytes} bytes follow the message, and a call has only one")
        if size:
            self._pieces.append(piece)

    def _read_prefix(self, prefix: bytes) -> None:
        calls = self._calls
        assert self._caller is not None
        assert self._share is not None
        flag: i64 = prefix[0]
        size: i64 = prefix[1] << 24 | prefix[2] << 16 | prefix[3] << 8 | prefix[4]
        self._has_prefix = True
        self._missing_bytes = size
        self._is_compressed = flag == 1
        if flag > 1 or (flag == 1 and self._head.encoding == _IDENTITY):
            raise RequestRefused(
                INVALID_COMPRESSION,
                f"the message is marked as compressed ({flag}), but no grpc-encoding says how"
                if flag == 1
                else f"the message's first byte is {flag}; 0 is plain and 1 is compressed",
            )
        if size > calls.message_bytes_max:
            raise RequestRefused(PAYLOAD_TOO_LARGE, f"the request is {size} bytes; at most {calls.message_bytes_max} are taken")
        if flag == 0:
            calls.pipeline.check(self._caller, int(size))
        self._share.check(int(size))

    def end(self) -> bool:
        """Note that nothing more comes. Return whether `finish` is to follow; if not, there is an answer."""
        if self._has_prefix and not self._missing_bytes and self._calls.running < self._calls.running_max:
            self.is_running = True
            self._calls.running += 1
            return True
        if not self._has_prefix:
            came = len(self._prefix)
            self.refuse(RequestRefused(INVALID_PROTOBUF, f"cannot decode the call: {came} bytes came, and no message"))
        elif self._missing_bytes:
            size = self._missing_bytes + self._body_bytes
            self.refuse(
                RequestRefused(INVALID_PROTOBUF, f"cannot decode the message: {size} bytes, truncated at {self._body_bytes}")
            )
        else:
            self.refuse(Overloaded(f"{self._calls.running} requests are in flight, which are taken at most"))
        return False

    def timed_out(self) -> None:
        """The rest of the message did not come in time."""
        timeout_s = self._calls.body_timeout_s
        self.refuse(
            RequestRefused(
                REQUEST_TIMEOUT, f"{self._body_bytes} bytes of the request, and not its end, came within {timeout_s:g} s"
            )
        )

    async def finish(self) -> None:
        """The message is whole. Return when what is to be said of it is known: where it was accepted, it is durable."""
        calls = self._calls
        try:
            assert self._caller is not None
            pieces = self._pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._pieces = []
            if self._is_compressed:
                assert self._head.encoding is not None
                work = decompressed(
                    body,
                    self._head.encoding,
                    int(calls.message_bytes_max),
                    hold=self._hold,
                    admit=partial(calls.pipeline.check, self._caller),
                    tenant=self._caller.tenant,
                    threads=calls.pipeline.large_bodies.decompressing,
                )
                body = await calls.pipeline.charging_refusals(self._caller, work, self._cost)
                self._body_bytes = len(body)
            method = self._head.method
            outcome = await calls.pipeline.ingest(method.input, body, self._caller, self._hold_rows, self._head.idempotency_key)
            answer = method.dialect.body(outcome)
            self.body = b"\0" + len(answer).to_bytes(4, "big") + answer
            self.said = ok_trailers(str(outcome.batch_id).encode())
            self.is_accepted = True
            self.has_answer = True
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above
            self.refuse(error)
        finally:
            calls.running -= 1
            self.is_running = False
            self._release()

    def refuse(self, error: BaseException) -> None:
        """This is the answer."""
        if isinstance(error, asyncio.CancelledError):
            # Only a stop that has waited long enough cancels. The answer says that the request may be sent again.
            error = ShuttingDown("the collector stopped before the request was done")
        self._release()
        calls = self._calls
        refusal = calls.explain(error)
        calls.metrics.refused(refusal.reason)
        log_if_defect(error, refusal, self._head.method.service)
        self._code = refusal.codes.grpc
        self.said = refused(refusal)
        self.has_answer = True

    def completed(self) -> None:
        """Count the call: its answer was sent."""
        self._count(NAMES[self._code])

    def disconnected(self) -> None:
        """Its sender is, before the request was whole."""
        self._release()
        self._count(NAMES[CANCELLED])

    def _count(self, code: str) -> None:
        self._head.method.endpoint.answered(code, self._calls.clock() - self._clock_began, int(self._body_bytes))

    def _hold(self, size_bytes: int) -> None:
        """Raises Overloaded."""
        assert self._share is not None
        self._share.reserve(size_bytes)
        self._held_bytes += size_bytes

    def _cost(self) -> int:
        """Return the bytes that arrived, plus those that were decompressed from them."""
        return int(self._held_bytes)

    def _hold_rows(self, size_bytes: int) -> None:
        """Raises Overloaded."""
        assert self._share is not None
        self._held_bytes += self._share.reserve_all_that_fits(int(self._held_bytes), size_bytes)

    def _release(self) -> None:
        if self._held_bytes and self._share is not None:
            self._share.release(int(self._held_bytes))
            self._held_bytes = 0
        self._pieces = []
