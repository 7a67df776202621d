"""The life of one request that brings telemetry, over HTTP or gRPC: admit, feed, finish, answer.

Each protocol has a subclass, which reads the protocol's head and framing and writes its answer. Nothing here depends on
connections.

Invariants:
1. Every byte that is reserved from the budget is released once (test_the_budget_is_held_until_the_answer,
   test_a_sender_that_goes_away_leaves_nothing_behind, test_what_is_cancelled_before_it_is_whole_is_nothing).
2. There is exactly one answer, whatever happens (test_no_body_makes_a_5xx, test_no_head_makes_a_5xx,
   test_no_body_makes_a_server_error).
3. A body whose announced size exceeds the limit is refused for that reason, even if the plan or the budget has no room now
   either: a client would retry a temporary refusal for ever (test_a_permanent_refusal_comes_before_a_temporary_one).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from mypy_extensions import i64

from adapters.codec.pieces import PiecesCount
from adapters.errors import EXCEEDS_PLAN, PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, RequestRefused
from adapters.record import Adapted
from collector.ingest.pipeline import Outcome, Pipeline
from collector.ingest.produce import InFlight, InFlightShare, Overloaded
from collector.ingest.reading import Input
from collector.ingest.room import Room, WholeBody
from collector.rate_limit.contract import Limited
from collector.receivers.decompress import decompressed
from collector.receivers.encodings import IDENTITY
from collector.receivers.refusals import Explain, Refusal, ShuttingDown, log_if_defect
from collector.receivers.sender_log import SenderLog, log_request
from collector.receivers.unfinished_bodies import ConnectionBodies, UnfinishedBodies
from collector.telemetry.instruments import Endpoint
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller

# A larger body waits until there is room for the memory that it may need.
LARGE_BYTES: Final = 64 << 10
_LARGE_COMPRESSED_BYTES: Final = 8 << 10
# The decompressed size of a body is not known before, so this factor is assumed. For telemetry it is 10 to 40.
_COMPRESSED_GROWTH: Final = 64


class Receiver:
    """The objects and limits that all requests of a server share."""

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        metrics: Metrics,
        *,
        body_bytes_max: int,
        body_bytes_setting: str,
        decompressed_bytes_max: int,
        body_timeout_s: float,
        access: Access,
        explain: Explain,
        clock: Callable[[], float],
        unfinished: UnfinishedBodies,
    ) -> None:
        """`body_bytes_setting` is the name of the setting of `body_bytes_max`, for messages."""
        self.unfinished: Final = unfinished
        self.pipeline: Final = pipeline
        self.in_flight: Final = in_flight
        self.metrics: Final = metrics
        self.body_bytes_max: Final[int] = body_bytes_max
        self.body_bytes_setting: Final = body_bytes_setting
        self.decompressed_bytes_max: Final[int] = decompressed_bytes_max
        self.body_timeout_s: Final[float] = body_timeout_s
        self.access: Final = access
        self.explain: Final = explain
        self.clock: Final = clock
        self.sender_log: SenderLog | None = None
        """Collects rejections, refusals and repairs by tenant, for the log; None if they are not logged."""
        self.logs_requests: bool = False
        """Whether each request is logged."""


class TelemetryRequest:
    """One request. Call `admit`, then `feed` with each piece of the body, then `finish`, each only while there is no answer.
    At the end call `completed`, or `disconnected` if the client disconnected before the request was whole."""

    def __init__(
        self, receiver: Receiver, endpoint: Endpoint, route_name: str, body_name: str, bodies: ConnectionBodies
    ) -> None:
        """`route_name` is the route, for the log. `body_name` is the protocol's word for the body, for messages.

        `bodies` counts the unfinished bodies of the connection.
        """
        self.is_abandoned: bool = False
        """Whether the rest of the body is no longer waited for."""
        self.can_be_held_back: bool = False
        """Whether a large body can wait for room. If so, it needs no room when it begins."""
        self.body_bytes: i64 = 0
        """How many bytes of the body have come, before decompression."""
        self.announced_bytes: int = 0
        """The body's size as the head, or the prefix of a gRPC message, announces it; 0 if it is not announced."""
        self._receiver: Final = receiver
        self._endpoint: Final = endpoint
        self._route_name: Final = route_name
        self._body_name: Final = body_name
        self._began: Final[float] = receiver.clock()
        self._input: Input | None = None
        self._encoding: str = IDENTITY
        self._idempotency_key: bytes = b""
        self._refusal: RequestRefused | None = None
        """The refusal of the head, if the body is read before it is answered. The answer is always this refusal then."""
        self._caller: Caller | None = None
        self._share: InFlightShare | None = None
        self._bodies: Final = bodies
        self._is_unfinished: bool = False
        self._at_work: WholeBody | None = None
        self._held_bytes: i64 = 0
        self._content_bytes: i64 = -1
        """The size of the decompressed body; below 0 if it is not decompressed yet."""
        self._is_counted: bool = False
        """Whether the code that refuses counts the refusal for its tenant, so that `refuse` must not."""
        self._adapted: Adapted | None = None
        """The accepted and rejected items; None if the request was refused, or is not done."""

    # Methods that each protocol implements.

    def _admit(self) -> None:
        """Decide by the head alone. Raises the errors that `Receiver.explain` knows."""
        raise NotImplementedError

    def _take(self, piece: bytes) -> None:
        """Take the next piece of the bytes after the head. Raises the errors that `Receiver.explain` knows."""
        raise NotImplementedError

    def _body(self) -> bytes:
        """Return the whole body, which may be compressed."""
        raise NotImplementedError

    def _accept(self, outcome: Outcome) -> None:
        """Write the answer of a request that was accepted."""
        raise NotImplementedError

    def _reject(self, refusal: Refusal) -> None:
        """Write the answer of a request that is refused."""
        raise NotImplementedError

    def completed(self) -> None:
        """Count the request: its answer was sent."""
        raise NotImplementedError

    def disconnected(self) -> None:
        """Count the request: its client disconnected before it was whole."""
        raise NotImplementedError

    # Methods that a connection calls.

    def admit(self) -> bool:
        """Decide by the head alone, so that a refusal is cheap. Return whether the body is wanted; if not, it is answered."""
        try:
            self._admit()
        except Exception as error:  # noqa: BLE001  # every error is answered, and a defect is logged
            self.refuse(error)
            return False
        return True

    def feed(self, piece: bytes) -> bool:
        """Take the next piece. Return whether more is wanted; if not, there is an answer."""
        try:
            self._take(piece)
        except Exception as error:  # noqa: BLE001  # as above
            self.refuse(error)
            return False
        return True

    def timed_out(self, timeout_s: float) -> None:
        """Refuse the request, since the rest of its body did not come within that time."""
        self.is_abandoned = True
        self.refuse(
            RequestRefused(
                REQUEST_TIMEOUT,
                f"{self.body_bytes} bytes of the {self._body_name}, and not its end, came within {timeout_s:g} s",
            )
        )

    async def finish(self) -> None:
        """Process the body, which is whole. Return when there is an answer. If the answer accepts the request, its items are
        durable."""
        self._end_body()
        try:
            caller = self._caller
            assert caller is not None
            assert self._input is not None
            pipeline = self._receiver.pipeline
            body = self._body()
            refusal = self._refusal
            if self._encoding == IDENTITY:
                if len(body) > LARGE_BYTES:
                    await self._wait_for_room(len(body))
            elif len(body) > _LARGE_COMPRESSED_BYTES:
                await self._wait_for_room(min(_COMPRESSED_GROWTH * len(body), self._receiver.decompressed_bytes_max))
            if refusal is not None:
                await pipeline.charges.take(caller, None, len(body))
            else:
                self._is_counted = True
            count: PiecesCount | None = None
            if refusal is None and self._encoding != IDENTITY:
                count = pipeline.count_pieces(self._input)
                work = decompressed(
                    body,
                    self._encoding,
                    self._receiver.decompressed_bytes_max,
                    count,
                    hold=self._hold,
                    admit=partial(pipeline.charges.check, caller),
                    tenant=caller.tenant,
                    threads=pipeline.large_bodies.decompressing,
                    turns=pipeline.turns,
                )
                received_bytes = self._cost()
                try:
                    body = await pipeline.charges.charge_if_refused(caller, work, self._cost, received_bytes)
                    self._content_bytes = len(body)
                    if self._at_work is not None and self._share is not None:
                        self._share.room.expect(self._at_work, len(body))
                except RequestRefused as refused:
                    refusal = refused
                    if count.is_exceeded:
                        body = count.beginning
            if refusal is not None:
                await pipeline.keep_refused(self._input, body, caller, refusal)
                raise refusal
            outcome = await pipeline.ingest(
                self._input, body, caller, self._hold_rows, self._idempotency_key, int(self.body_bytes), count
            )
            self._adapted = outcome.adapted
            sender_log = self._receiver.sender_log
            if sender_log is not None:
                sender_log.taken(caller.tenant, outcome.adapted)
            self._accept(outcome)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above
            self.refuse(error)
        finally:
            self._release()

    def refuse(self, error: BaseException) -> None:
        """Answer with this error."""
        if isinstance(error, asyncio.CancelledError):
            # A request is cancelled only by a stop that has waited long enough. The answer says that it may be sent again.
            self.is_abandoned = True
            error = ShuttingDown("the collector stopped before the request was done")
        if self._refusal is not None:
            error = self._refusal
        self._release()
        receiver = self._receiver
        refusal = receiver.explain(error)
        receiver.metrics.refused(refusal.reason)
        if (
            self._caller is not None
            and isinstance(error, RequestRefused)
            and error.reason != EXCEEDS_PLAN
            and not self._is_counted
        ):
            receiver.metrics.tenant(self._caller.tenant).refused()
        log_if_defect(error, refusal, self._route_name)
        if receiver.sender_log is not None:
            receiver.sender_log.refused(None if self._caller is None else self._caller.tenant, refusal)
        self._reject(refusal)

    # Methods that a protocol calls.

    def _identify(self, key: bytes | None, origin: bytes = b"") -> Caller:
        """Find the caller and its share of the budget. `origin` is the origin of the web page that sends. Raises
        RequestRefused."""
        caller = self._receiver.access.sender(key, origin)
        self._caller = caller
        self._share = self._receiver.in_flight.share(caller.tenant)
        return caller

    def _expect(self, size_bytes: int, plan_bytes: int) -> None:
        """Check an announced size. `plan_bytes` is the least that the body takes of the plan.

        Raises RequestRefused, Limited, Overloaded.
        """
        receiver = self._receiver
        assert self._caller is not None
        assert self._share is not None
        self.announced_bytes = size_bytes
        if size_bytes > receiver.body_bytes_max:
            raise RequestRefused(
                PAYLOAD_TOO_LARGE,
                f"the {self._body_name} is {size_bytes} bytes; at most {receiver.body_bytes_max} are taken"
                f" ({receiver.body_bytes_setting})",
            )
        receiver.pipeline.charges.check(self._caller, plan_bytes)
        if not (self.can_be_held_back and size_bytes > LARGE_BYTES):
            self._share.check(size_bytes)

    def _refuse_when_whole(self, refusal: RequestRefused, announced_bytes: int) -> None:
        """Read the body before the refusal, so that its beginning is kept as a dead letter. Raises `refusal` at once if nothing
        can be kept, or there is no room for the body.

        `announced_bytes` is the body's announced size; 0 if unknown.
        """
        self._raise_unless_kept(refusal)
        try:
            self._expect(announced_bytes, announced_bytes)
            self._begin_body()
        except (RequestRefused, Limited, Overloaded):
            raise refusal from None
        self._refusal = refusal

    def _raise_unless_kept(self, refusal: RequestRefused) -> None:
        """Raise `refusal` if the refused body could not be kept as a dead letter."""
        assert self._caller is not None
        if not self._receiver.pipeline.can_keep_refused(self._caller):
            raise refusal

    async def _wait_for_room(self, growth_bytes: int) -> None:
        """Wait until there is room for `growth_bytes` in addition to the body, but no longer than `body_timeout_s`."""
        assert self._share is not None
        at_work = self._at_work = WholeBody(growth_bytes)
        await self._share.room.begin(at_work, self._receiver.body_timeout_s)

    def room(self) -> Room | None:
        """Return the room in which the body waits for other bodies of its tenant; None if no body is waited for."""
        return self._share.room if self._is_unfinished and self._share is not None else None

    def _begin_body(self) -> None:
        """Note that the body is waited for. Raises Overloaded if too many bodies are, or too many of its tenant."""
        assert self._caller is not None
        self._bodies.begin(self._caller.tenant)
        self._is_unfinished = True

    def _end_body(self) -> None:
        if self._is_unfinished:
            assert self._caller is not None
            self._is_unfinished = False
            self._bodies.end(self._caller.tenant)

    def _hold(self, size_bytes: int) -> None:
        """Reserve bytes of the budget until the answer. Raises Overloaded."""
        assert self._share is not None
        self._share.reserve(size_bytes)
        self._held_bytes += size_bytes

    def _cost(self) -> int:
        """Return the bytes that arrived, plus those that were decompressed from them."""
        return int(self._held_bytes)

    def _hold_rows(self, size_bytes: int) -> None:
        """Reserve bytes for the rows, up to the tenant's share. Raises Overloaded."""
        assert self._share is not None
        self._held_bytes += self._share.reserve_all_that_fits(int(self._held_bytes), size_bytes)

    def _release(self) -> None:
        """Release the held bytes and places. A protocol also drops the pieces of the body."""
        self._end_body()
        if self._share is not None:
            if self._at_work is not None:
                self._share.room.end(self._at_work)
                self._at_work = None
            if self._held_bytes:
                self._share.release(int(self._held_bytes))
                self._held_bytes = 0

    def _count(self, code: int | str, size_bytes: i64) -> None:
        seconds = self._receiver.clock() - self._began
        self._endpoint.answered(code, seconds, int(size_bytes))
        if self._receiver.logs_requests:
            log_request(self._route_name, code, self._caller, int(size_bytes), seconds, self._adapted)
