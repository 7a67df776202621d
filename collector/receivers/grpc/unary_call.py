"""A gRPC call with telemetry. Its life cycle is in receivers/request.py. It knows nothing of frames.

Invariants:
1. A message is refused by its prefix, before its bytes come (test_over_the_budget_is_unavailable_with_a_delay).
2. Whatever a call contains, its answer is a valid gRPC answer (test_no_body_makes_a_server_error).
3. A call that is not whole at its own deadline ends then (test_calls_that_are_not_whole_end_at_their_own_deadline).
"""

from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from adapters.errors import (
    INVALID_COMPRESSION,
    INVALID_PARAMETER,
    INVALID_PROTOBUF,
    UNSUPPORTED_CONTENT_ENCODING,
    UNSUPPORTED_MEDIA_TYPE,
    RequestRefused,
)
from collector.config.receivers import Grpc
from collector.ingest.pipeline import Outcome, Pipeline
from collector.ingest.produce import InFlight, Overloaded
from collector.receivers.encodings import GRPC, GRPC_NAMES, IDENTITY
from collector.receivers.grpc.services import Method
from collector.receivers.grpc.status import accepted, refused
from collector.receivers.grpc.stream_call import PREFIX_BYTES
from collector.receivers.grpc.timeouts import Timeout
from collector.receivers.http2_bodies import BodyStream
from collector.receivers.refusals import Explain, Refusal, codes_of
from collector.receivers.request import Receiver, TelemetryRequest
from collector.receivers.rpc_codes import NAMES, RPC_CANCELLED, RPC_OK
from collector.receivers.transport.fields import joined
from collector.receivers.transport.http2_connection import ServerConnection
from collector.receivers.unfinished_bodies import ConnectionBodies, UnfinishedBodies
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access, key_of

_SHOWN_BYTES_MAX: Final = 100


class CallHead:
    """The parts of a call's head that matter. Many calls have the same head."""

    def __init__(self, method: Method, headers: list[tuple[bytes, bytes]], odd_type: str = "") -> None:
        """`odd_type` is what is wrong with the content-type; empty if nothing is."""
        self.odd_type: Final = odd_type
        self.method: Final = method
        self.encoding: str | None = IDENTITY
        self.encoding_shown: bytes = b""
        self.key: bytes | None = None
        self.idempotency_key: bytes = b""
        encoding: bytes | None = None
        timeout: bytes | None = None
        api_key: bytes | None = None
        authorization: bytes | None = None
        for name, value in headers:
            if name == b"x-api-key":
                api_key = joined(api_key, value)
            elif name == b"authorization":
                authorization = joined(authorization, value)
            elif name == b"idempotency-key":
                self.idempotency_key = joined(self.idempotency_key or None, value)
            elif name == b"grpc-encoding":
                encoding = joined(encoding, value)
            elif name == b"grpc-timeout":
                timeout = joined(timeout, value)
        if encoding is not None:
            # A header that was sent several times is an unknown encoding.
            self.encoding = GRPC.get(encoding)
            self.encoding_shown = encoding[:_SHOWN_BYTES_MAX]
        self.timeout: Final = Timeout(timeout)
        self.key = key_of(api_key, authorization)


class GrpcReceiver(Receiver):
    """The objects and limits that all calls of a server share."""

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
        super().__init__(
            pipeline,
            in_flight,
            metrics,
            body_bytes_max=settings.message_bytes_max,
            body_bytes_setting="grpc.message_bytes_max",
            decompressed_bytes_max=settings.message_bytes_max,
            body_timeout_s=settings.body_timeout_s,
            access=access,
            explain=explain,
            clock=clock,
            unfinished=UnfinishedBodies(settings),
        )
        self.running_max: Final[int] = settings.concurrent_requests_max
        self.running: int = 0


class Call(TelemetryRequest):
    """A call with telemetry. `trailers` is empty until there is an answer."""

    def __init__(self, receiver: GrpcReceiver, head: CallHead, bodies: ConnectionBodies) -> None:
        super().__init__(receiver, head.method.endpoint, head.method.service, "request", bodies)
        self.can_be_held_back = True
        self.timeout_s: Final = head.timeout.seconds
        """The client's own deadline."""
        self.is_accepted: bool = False
        self.has_answer: bool = False
        self.answer: bytes = b""
        """The message, with its prefix; empty if the call was refused."""
        self.trailers: bytes = b""
        self._calls: Final = receiver
        self._head: Final = head
        self._code: int = RPC_OK
        self._prefix: bytes = b""
        self._has_prefix: bool = False
        self._missing_bytes: i64 = 0  # of the message
        self._pieces: list[bytes] = []  # few of them are small, since small frames cost credit

    def _admit(self) -> None:
        head = self._head
        self._input = head.method.input
        caller = self._identify(head.key)
        if head.odd_type:
            self._refuse_when_whole(RequestRefused(UNSUPPORTED_MEDIA_TYPE, head.odd_type), 0)
            return
        if head.encoding is None:
            shown = head.encoding_shown.decode("latin-1")
            message = f"grpc-encoding {shown!r} is not one of {GRPC_NAMES.decode()}"
            self._refuse_when_whole(RequestRefused(UNSUPPORTED_CONTENT_ENCODING, message), 0)
            return
        if head.timeout.problem:
            raise RequestRefused(INVALID_PARAMETER, head.timeout.problem)
        self._idempotency_key = head.idempotency_key
        self._calls.pipeline.charges.check(caller, 0)
        self._begin_body()

    def _take(self, piece: bytes) -> None:
        if not self._has_prefix:
            if self._prefix:
                piece = self._prefix + piece
            if len(piece) < PREFIX_BYTES:
                self._prefix = piece
                return
            self._read_prefix(piece)
            piece = piece[PREFIX_BYTES:]
        size: i64 = len(piece)
        self._hold(int(size))
        self.body_bytes += size
        self._missing_bytes -= size
        if self._missing_bytes < 0:
            raise RequestRefused(INVALID_PROTOBUF, f"{-self._missing_bytes} bytes follow the message, and a call has only one")
        if size:
            self._pieces.append(piece)

    def _read_prefix(self, prefix: bytes) -> None:
        flag: i64 = prefix[0]
        size: i64 = prefix[1] << 24 | prefix[2] << 16 | prefix[3] << 8 | prefix[4]
        self._has_prefix = True
        self._missing_bytes = size
        if flag > 1:
            raise RequestRefused(INVALID_COMPRESSION, f"the message's first byte is {flag}; 0 is plain and 1 is compressed")
        if flag == 1 and self._refusal is None:
            encoding = self._head.encoding
            assert encoding is not None
            if encoding == IDENTITY:
                refusal = RequestRefused(
                    INVALID_COMPRESSION, "the message is marked as compressed (1), but no grpc-encoding says how"
                )
                self._raise_unless_kept(refusal)
                self._refusal = refusal
            self._encoding = encoding
        # The decompressed size is not known yet. It counts later, if it is larger.
        self._expect(int(size), int(size))

    def end(self) -> bool:
        """Note that no more bytes come. Return whether to call `finish`; if not, there is an answer."""
        calls = self._calls
        if self._has_prefix and not self._missing_bytes and calls.running < calls.running_max:
            calls.running += 1
            return True
        if not self._has_prefix:
            received = len(self._prefix)
            self.refuse(RequestRefused(INVALID_PROTOBUF, f"cannot decode the call: {received} bytes came, and no message"))
        elif self._missing_bytes:
            size = self._missing_bytes + self.body_bytes
            self.refuse(
                RequestRefused(INVALID_PROTOBUF, f"cannot decode the message: {size} bytes, truncated at {self.body_bytes}")
            )
        else:
            message = f"{calls.running} requests run; at most {calls.running_max} run at once (grpc.concurrent_requests_max)"
            self.refuse(Overloaded(message))
        return False

    def call_done(self) -> None:
        """Note that `finish` has returned: another call may run."""
        self._calls.running -= 1

    def _body(self) -> bytes:
        pieces = self._pieces
        self._pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _accept(self, outcome: Outcome) -> None:
        message = self._head.method.dialect.body(outcome)
        self.answer = b"\0" + len(message).to_bytes(4, "big") + message
        self.trailers = accepted(outcome)
        self.is_accepted = True
        self.has_answer = True

    def _reject(self, refusal: Refusal) -> None:
        if refusal.reason == UNSUPPORTED_MEDIA_TYPE:
            # In gRPC the content-type is the coding of messages, and this code is for an unsupported coding.
            refusal = refusal._replace(codes=codes_of(UNSUPPORTED_CONTENT_ENCODING))
        self._code = refusal.codes.grpc
        self.trailers = refused(refusal)
        self.has_answer = True

    def completed(self) -> None:
        self._count(NAMES[self._code], self._size())

    def disconnected(self) -> None:
        self._release()
        self._count(NAMES[RPC_CANCELLED], self._size())

    def _size(self) -> i64:
        """Return the bytes of the message, decompressed if that was done."""
        return self._content_bytes if self._content_bytes >= 0 else self.body_bytes

    def _release(self) -> None:
        super()._release()
        self._pieces = []


class UnaryStream(BodyStream):
    """The stream of one call with telemetry."""

    def __init__(self, connection: ServerConnection, stream_id: int, began: float, call: Call) -> None:
        """`began` is the loop's time."""
        super().__init__(connection, stream_id, began)
        self.call: Final = call
