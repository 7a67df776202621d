"""The path of a request of any protocol: adapt, validate, limit, produce, count. `Pipeline.ingest` is the whole path.

Invariants:
1. `ingest` returns only when every accepted item is durable (test_it_returns_only_when_the_broker_has_it).
2. Every item has exactly one outcome, which the answer and the receipt both report (test_the_counters_add_up). Items are
   accepted or rejected. All items of a request are *rate limited* if the tenant is over its plan.
3. All items of a request have *failed* if the broker fails, even those that would have been rejected. The sender is asked to
   send all of them again, and gets the reasons of the bad items then (test_when_the_broker_fails_all_items_have_failed).
"""

import contextlib
from collections.abc import Callable
from typing import Final

from uuid_utils import UUID, uuid7

from adapters.codec.pieces import PiecesCount
from adapters.errors import RequestRefused
from adapters.record import Adapted, Header
from collector.broker.contract import BrokerError
from collector.ingest.answered_requests import AnsweredRequest
from collector.ingest.charges import Charges
from collector.ingest.large_bodies import LargeBodies
from collector.ingest.loop_turns import UNTIMED_BYTES_MAX, LoopTurns
from collector.ingest.on_loop import OnLoop, TooLong
from collector.ingest.produce import Produce, ShareExceeded
from collector.ingest.reading import BodyReader, Input, Reading
from collector.ingest.receipts import Receipts, parts_with_receipt
from collector.ingest.request_fingerprints import RequestFingerprints
from collector.ingest.validate import Limits
from collector.query.live_records import LiveRecords
from collector.query.recent_batches import RecentBatches
from collector.rate_limit.contract import Limited, Limiter
from collector.records.dead_letter import DeadLetters, DeadLettersFull, Origin
from collector.telemetry.metrics import Metrics
from collector.tenancy.identity import Caller


class Outcome:
    """The outcome of a request that was taken. `adapted` counts the accepted and the rejected items, with the reasons.

    This is a class, since a NamedTuple is made by interpreted code, in 2,400 instructions. For the same reason an accepted
    request makes no NamedTuple at all.
    """

    def __init__(self, batch_id: UUID, adapted: Adapted) -> None:
        self.batch_id: Final = batch_id
        self.adapted: Final = adapted


class Defect(Exception):
    """A request failed through a defect of the collector. The cause is chained; nothing was acknowledged."""

    def __init__(self, batch_id: UUID, cause: BaseException) -> None:
        super().__init__(f"a defect of the collector, batch {batch_id}")
        self.batch_id: Final = batch_id
        self.__cause__ = cause  # compiled code ignores the `from` of `raise … from`


class Pipeline:
    """Every receiver calls `ingest`. `now_unix_nano` is the clock, in nanoseconds since the Unix epoch."""

    def __init__(
        self,
        produce: Produce,
        limits: Limits,
        limiter: Limiter,
        dead_letters: DeadLetters,
        receipts: Receipts,
        metrics: Metrics,
        *,
        message_bytes_max: int,
        message_row_bytes_max: int,
        now_unix_nano: Callable[[], int],
        large_bodies: LargeBodies,
        recent: RecentBatches | None = None,
        fingerprints: RequestFingerprints | None = None,
        live: LiveRecords | None = None,
    ) -> None:
        """`recent` remembers the answers of recent batches. `fingerprints` recognizes requests that are sent again; None if
        they are not recognized. `live` shows records to clients that watch."""
        self.charges: Final = Charges(limiter, metrics)
        self._reader: Final = BodyReader(
            limits, dead_letters, message_bytes_max=message_bytes_max, message_row_bytes_max=message_row_bytes_max
        )
        self._produce: Final = produce
        self._dead_letters: Final = dead_letters
        self._receipts: Final = receipts
        self._recent: Final = recent
        self._fingerprints: Final = fingerprints
        self._live: Final = live
        self._metrics: Final = metrics
        self.large_bodies: Final = large_bodies
        self.turns: Final = LoopTurns()
        self._on_loop: Final = OnLoop()
        self._pause_on_loop: Final[Callable[[], None]] = self._on_loop.pause
        self._now_unix_nano: Final = now_unix_nano

    async def ingest(
        self,
        input_: Input,
        body: bytes,
        caller: Caller,
        hold: Callable[[int], None],
        key: bytes = b"",
        sent_bytes: int = 0,
        count: PiecesCount | None = None,
    ) -> Outcome:
        """Return when every accepted item of `body` is durable. `key` is the sender's Idempotency-Key, or empty. `sent_bytes`
        is the size of the body as it was sent. `count` has counted the body's elements while it was decompressed. `hold` is
        called with the bytes that the request costs beyond its body, once they are known; it may raise Overloaded.

        Raises RequestRefused (permanent), Limited, Overloaded or DeadLettersFull (retryable: nothing was kept),
        BrokerError (retryable: after a BrokerDown, Kafka may have kept some of it) or Defect.
        """
        is_limited = caller.plan.is_limited
        size = max(len(body), sent_bytes)
        if is_limited:
            self.charges.check(caller, size)
        now = self._now_unix_nano()
        batch_id = uuid7(nanoseconds=now)
        id_bytes: bytes = batch_id.bytes
        header = Header(caller.tenant, input_.source, now, id_bytes)
        reading = Reading(self._reader, input_, body, size, caller, header, id_bytes, count)
        prints: list[bytes] = []
        refusal: RequestRefused | DeadLettersFull | None = None  # raised after its handler: compiled code must not await in one
        try:
            reading.is_on_loop = reading.is_on_loop and self._on_loop.may_begin(caller.tenant, len(body))
            if self.turns.is_busy and len(body) > UNTIMED_BYTES_MAX:
                await self._turn_on_loop(reading)
            self._read_on_loop(reading)
            if not reading.is_on_loop:
                await self._read_in_thread(reading)
            prints = self._check(reading, key)
        except (RequestRefused, DeadLettersFull) as refused:
            refusal = refused
        except Limited:
            raise
        except Exception as defect:
            raise Defect(batch_id, defect) from defect
        if refusal is not None:
            await self._refuse(reading, refusal)
            raise refusal
        fingerprints = self._fingerprints
        answered = None if fingerprints is None else fingerprints.find(caller.tenant, prints, now)
        if answered is not None and fingerprints is not None and not fingerprints.is_due(answered, now):
            await self._charge_repeated(reading)
            return Outcome(answered.batch_id, answered.counts)
        adapted = reading.adapted
        self._hold(reading, hold)
        read_cost = reading.cost_bytes()
        cost = max(read_cost, adapted.row_bytes)
        if is_limited:
            await self.charges.take_whole(caller, adapted, cost, read_cost)
        if adapted.accepted_count() or adapted.rejected:
            await self._make_durable(reading, batch_id, prints, cost, answered)
        self._count_ingested(reading)
        return Outcome(batch_id, adapted) if answered is None else Outcome(answered.batch_id, answered.counts)

    def count_pieces(self, input_: Input) -> PiecesCount:
        """Return a counter of the elements of a body that comes in pieces."""
        return input_.count_pieces(self._reader.limits.request_elements_max)

    async def _turn_on_loop(self, reading: Reading) -> None:
        """Return when a small body may be read. Raises Limited if other requests have used up the tenant's plan meanwhile."""
        if reading.is_on_loop:
            await self.turns.wait(reading.caller.tenant, len(reading.body))
            self.charges.check(reading.caller, reading.size_bytes)

    def _read_on_loop(self, reading: Reading) -> None:
        """Read a small body on the event loop. If that takes too long, clear `is_on_loop`. Raises RequestRefused."""
        if not reading.is_on_loop:
            return
        turns = self.turns
        is_counted = len(reading.body) > UNTIMED_BYTES_MAX
        began_s = turns.clock() if is_counted else 0.0
        try:
            self._on_loop.begin(reading.caller.tenant, len(reading.body))
            reading.begin()(self._pause_on_loop)
        except TooLong:
            reading.is_on_loop = False
        finally:
            self._on_loop.end()
            if is_counted:
                turns.used(reading.caller.tenant, turns.clock() - began_s)

    async def _read_in_thread(self, reading: Reading) -> None:
        """Read a body in a thread. Raises RequestRefused, and Limited if the tenant's other requests have used up its plan
        meanwhile."""

        def begin() -> Callable[[Callable[[], None] | None], None]:
            self.charges.check(reading.caller, reading.size_bytes)
            return reading.begin()

        await self.large_bodies.run(reading.caller.tenant, begin)

    def _check(self, reading: Reading, key: bytes) -> list[bytes]:
        """Return the fingerprints of a request that was read. Raises DeadLettersFull, RequestRefused."""
        caller = reading.caller
        adapted = reading.adapted
        now = reading.header.received_time_unix_nano
        if adapted.rejected:
            self._dead_letters.check(reading.budget, adapted, now)
        prints: list[bytes] = []
        if self._fingerprints is not None:
            coarse = reading.has_coarse_times
            prints = self._fingerprints.of(caller, reading.input.route, reading.body, key, adapted, coarse, now)
        if adapted.dead_letter_items:
            self._dead_letters.count(caller.tenant, adapted)
        return prints

    async def _refuse(self, reading: Reading, refusal: RequestRefused | DeadLettersFull) -> None:
        """Charge the tenant for a request that can't be read or kept, by the cost of reading it. Otherwise nothing would limit
        such requests."""
        caller = reading.caller
        cost = reading.cost_bytes()
        if isinstance(refusal, DeadLettersFull):
            await self.charges.charge(caller, cost)
            self._count_failed(reading)
            return
        await self.charges.take_whole(caller, None, cost, cost)
        self._metrics.tenant(caller.tenant).refused()
        await self._keep(reading.origin(), refusal, reading.body)

    def can_keep_refused(self, caller: Caller) -> bool:
        """Return whether the tenant's caps have room for a request that is refused as a whole."""
        budget = self._dead_letters.budget(caller.tenant, self._now_unix_nano())
        return budget.items > 0 and budget.size_bytes > 0

    async def keep_refused(self, input_: Input, body: bytes, caller: Caller, refusal: RequestRefused) -> None:
        """Keep the beginning of a body that reaches no adapter: its media type or encoding is unknown, or it can't be
        decompressed."""
        now = self._now_unix_nano()
        batch_id: bytes = uuid7(nanoseconds=now).bytes
        await self._keep(Origin(caller.tenant, input_.source, input_.route, now, batch_id, input_.payload_form), refusal, body)

    async def _keep(self, origin: Origin, refusal: RequestRefused, body: bytes) -> None:
        """Keep the beginning of the body as a dead letter. A failure is ignored, since the sender gets the same answer."""
        letters = self._dead_letters.of_request(origin, refusal.reason, refusal.message, body, len(body))
        if letters:
            with contextlib.suppress(BrokerError):
                await self._produce([], letters)

    def _hold(self, reading: Reading, hold: Callable[[int], None]) -> None:
        """Hold the bytes that a request's rows have beyond its body in the budget of bytes in flight. Raises Overloaded."""
        size_bytes = reading.adapted.row_bytes - len(reading.body)
        if size_bytes <= 0:
            return
        try:
            hold(size_bytes)
        except Exception as overloaded:
            self._count_failed(reading)
            if isinstance(overloaded, ShareExceeded):
                self.charges.count_beyond_share(reading.caller, reading.cost_bytes())
            raise

    async def _charge_repeated(self, reading: Reading) -> None:
        """Count a request that is durable already. It is charged only for being read."""
        await self.charges.take_whole(reading.caller, None, reading.cost_bytes(), reading.cost_bytes())
        self._metrics.repeated()

    def _count_ingested(self, reading: Reading) -> None:
        tenant, adapted = reading.caller.tenant, reading.adapted
        self._metrics.ingested(adapted, reading.letters.by_reason)
        self._metrics.tenant(tenant).ingested(adapted, len(reading.body))
        if self._live is not None and self._live.is_watched:
            self._live.note(tenant, reading.header.received_time_unix_nano, adapted)

    async def _make_durable(
        self, reading: Reading, batch_id: UUID, prints: list[bytes], cost: int, answered: AnsweredRequest | None
    ) -> None:
        """Append the request's messages, its receipt and its dead letters. `answered` is the request that it repeats, if it is
        known. Raises BrokerError, Defect."""
        caller, adapted, letters, header = reading.caller, reading.adapted, reading.letters, reading.header
        receipt = self._receipts.begin(
            header, reading.input.route.encode(), adapted, letters.items, prints[-1] if prints else b""
        )
        failure: BaseException | None = None
        try:
            parts = parts_with_receipt(
                header, adapted, receipt, prints, self._reader.message_bytes_max, self._reader.message_row_bytes_max
            )
            await self._produce(parts, letters.messages)
        except BaseException as failed:  # noqa: BLE001 - cancellation too: the sender gets no acknowledgement
            failure = failed
        if failure is not None:
            self._receipts.failed(receipt)
            self._count_failed(reading)
            await self.charges.give_back(caller, adapted, cost)
            if isinstance(failure, BrokerError) or not isinstance(failure, Exception):
                raise failure
            raise Defect(batch_id, failure)
        self._receipts.kept(receipt)
        now = header.received_time_unix_nano
        if prints and self._fingerprints is not None:
            answer_id: bytes = reading.batch_id if answered is None else answered.batch_id.bytes
            self._fingerprints.note(caller.tenant, prints, answer_id, adapted, now)
        if self._recent is not None:
            input_ = reading.input
            self._recent.note(reading.batch_id, caller.tenant, input_.source, input_.route, now, adapted, letters.items)

    def _count_failed(self, reading: Reading) -> None:
        self._metrics.failed(reading.adapted)
        self._metrics.tenant(reading.caller.tenant).failed(reading.adapted)
