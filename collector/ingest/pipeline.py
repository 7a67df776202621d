"""The path of a request, in any protocol: adapt, validate, limit, produce, count. `ingest` is all of it.

Invariants:
1. `ingest` returns only when what was accepted is durable (test_it_returns_only_when_the_broker_has_it).
2. Every item has exactly one outcome, which the answer and the receipt both report (test_the_counters_add_up). Items are
   accepted or rejected. All items of a request are *rate limited* if the tenant is over its plan.
3. All items of a request have *failed* if the broker fails, even those that would have been rejected: the sender is asked to
   send all of them again, and learns of the bad ones then (test_when_the_broker_fails_all_items_have_failed).
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from infrasage.v1.dead_letter_pb2 import PayloadForm
from uuid_utils import UUID, uuid7

from adapters.errors import RequestRefused
from adapters.record import LOGS, METRICS, TRACES, TYPE_EVENT, TYPE_LOG, TYPE_TRACE, Adapted, Header, Part
from adapters.rows import row_bytes
from adapters.rules import Rules
from collector.broker.contract import BrokerError
from collector.ingest.large_bodies import DIRECT_BYTES_MAX, LargeBodies, OnLoop, TooLong
from collector.ingest.produce import Produce, ShareExceeded
from collector.ingest.receipts import Receipt, Receipts, fingerprint_record, receipt_alone
from collector.ingest.request_fingerprints import RequestFingerprints
from collector.ingest.validate import LimitRules, Limits
from collector.query.batches import RecentBatches
from collector.query.live_records import LiveRecords
from collector.rate_limit.contract import Limited, Limiter
from collector.records.dead_letter import (
    ENTRY_BYTES_MAX,
    NO_BUDGET,
    NOTHING_KEPT,
    Budget,
    DeadLetters,
    DeadLettersFull,
    Kept,
    Origin,
)
from collector.telemetry.instruments import Tenant
from collector.telemetry.metrics import Metrics
from collector.tenancy.identity import Caller
from collector.tenancy.plans import RATE_MAX

# (body, header, rules, message_bytes_max). Raises RequestRefused.
Adapt = Callable[[bytes, Header, Rules, int], Adapted]

# Dead letters made on the event loop: each takes 12 us.
_LETTERS_ON_LOOP_MAX: Final = 1_000
# Where the receipt goes if nothing of the request was accepted. Any signal's topic would take it.
_SIGNALS: Final = {TYPE_LOG: LOGS, TYPE_EVENT: LOGS, TYPE_TRACE: TRACES}


class Input(NamedTuple):
    """One way in: who reads the bodies, and what is said of them in records, receipts and dead letters."""

    adapt: Adapt
    source: int
    route: str  # the HTTP path or gRPC method
    payload_form: PayloadForm  # what the adapter keeps of a rejected item


class Outcome(NamedTuple):
    """What became of a request that was taken. `adapted` has how many items were accepted and rejected, and why."""

    batch_id: UUID
    adapted: Adapted


class Defect(Exception):
    """Not the sender's fault and not the broker's: ours. The cause is chained; nothing was acknowledged."""

    def __init__(self, batch_id: UUID, cause: BaseException) -> None:
        super().__init__(f"a defect of the collector, batch {batch_id}")
        self.batch_id: Final = batch_id
        self.__cause__ = cause  # compiled code forgets what `raise … from` says


class Reading:
    """What is done of one request without the event loop: a body becomes messages."""

    def __init__(
        self, pipeline: "Pipeline", input_: Input, body: bytes, caller: Caller, header: Header, batch_id: bytes
    ) -> None:
        self._pipeline: Final = pipeline
        self._input: Final = input_
        self._body: Final = body
        self._caller: Final = caller
        self._tenant: Final = caller.tenant
        self._plan_row_bytes_max: Final = _plan_bytes_max(caller)
        self._window: Final = pipeline.limits.window_of(input_.payload_form, caller.tenant, caller.plan.past_max_s)
        self._header: Final = header
        self._batch_id: Final = batch_id
        self.budget: Budget = NO_BUDGET
        self.has_coarse_times: bool = False
        self.is_on_loop: bool = len(body) <= DIRECT_BYTES_MAX

    def begin(self) -> Callable[[Callable[[], None] | None], tuple[Adapted, Kept]]:
        """Look what is left of the tenant's caps now, and return what reads the body."""
        self.budget = self._pipeline.dead_letters.budget(self._tenant, self._header.received_time_unix_nano)
        return self._read

    def begin_after_waiting(self) -> Callable[[Callable[[], None] | None], tuple[Adapted, Kept]]:
        """Call `begin`, unless the tenant's other requests have used up its plan meanwhile. Raises Limited."""
        self._pipeline.check(self._caller, len(self._body))
        return self.begin()

    def _read(self, pause: Callable[[], None] | None) -> tuple[Adapted, Kept]:
        """Adapt and validate the items, and make dead letters of rejected ones. Raises RequestRefused, and TooLong on the event
        loop.

        `pause` is called from time to time.
        """
        pipeline = self._pipeline
        rules = LimitRules(
            pipeline.limits,
            self._header.received_time_unix_nano,
            dead_letter_items_max=self.budget.items,
            dead_letter_bytes_max=self.budget.size_bytes,
            message_row_bytes_max=pipeline.message_row_bytes_max,
            pause=pause,
            window=self._window,
        )
        rules.plan_row_bytes_max = self._plan_row_bytes_max
        rules.item_bytes_max = pipeline.limits.item_bytes_max - ENTRY_BYTES_MAX
        rules.dead_letter_cut_bytes = pipeline.dead_letters.payload_bytes_max
        # Each record leaves room for what a dead letter of it would have to say.
        adapted = self._input.adapt(self._body, self._header, rules, pipeline.message_bytes_max - ENTRY_BYTES_MAX)
        self.has_coarse_times = rules.has_coarse_times
        letters = NOTHING_KEPT
        if adapted.rejected:
            if self.is_on_loop and adapted.dead_letter_items > _LETTERS_ON_LOOP_MAX:
                raise TooLong
            letters = pipeline.dead_letters.make(self.origin(), adapted)
        return adapted, letters

    def origin(self) -> Origin:
        """Return what dead letters say of the request. It is an interpreted call, so make it only for rejected items."""
        input_ = self._input
        return Origin(
            self._tenant,
            input_.source,
            input_.route,
            self._header.received_time_unix_nano,
            self._batch_id,
            input_.payload_form,
        )


class Pipeline:
    """`ingest` for every receiver. `now_unix_nano` is the clock: nanoseconds since the Unix epoch."""

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
        """`recent` remembers what was answered. `fingerprints`: None recognizes no request that is sent again. `live` shows
        records to clients that watch."""
        self._produce: Final = produce
        self.limits: Final = limits
        self._limiter: Final = limiter
        self.dead_letters: Final = dead_letters
        self._receipts: Final = receipts
        self._recent: Final = recent
        self._fingerprints: Final = fingerprints
        self._live: Final = live
        self._metrics: Final = metrics
        self.large_bodies: Final = large_bodies
        self._on_loop: Final = OnLoop()
        self._pause_on_loop: Final[Callable[[], None]] = self._on_loop.pause
        self.message_bytes_max: Final = message_bytes_max
        self.message_row_bytes_max: Final = message_row_bytes_max
        self._now_unix_nano: Final = now_unix_nano

    def check(self, caller: Caller, size_bytes: int) -> None:
        """Before a body is read or decoded: whether one of at least that size may come. Takes nothing of the quota.

        Raises Limited, RequestRefused.
        """
        if caller.plan.is_limited:
            try:
                self._limiter.check(caller, size_bytes)
            except (Limited, RequestRefused) as error:
                _count(self._metrics.tenant(caller.tenant), error)
                raise

    async def charging_refusals(self, caller: Caller, work: Awaitable[bytes], cost: Callable[[], int]) -> bytes:
        """Await what is done of a body before `ingest`. Where that refuses it, or it does not fit its tenant's share of the
        bytes in flight, count it for the plan, with the bytes that `cost` returns. Raises what `work` does."""
        refusal: RequestRefused | None = None
        try:
            return await work
        except RequestRefused as refused:
            refusal = refused
        except ShareExceeded:
            self._limiter.refused(caller, cost())
            raise
        await self._charge(caller, cost())
        self._metrics.tenant(caller.tenant).refused()
        raise refusal

    async def ingest(
        self, input_: Input, body: bytes, caller: Caller, hold: Callable[[int], None], key: bytes = b""
    ) -> Outcome:
        """Return when every accepted item of `body` is durable. `key`: what its sender gave to recognize the request by.

        `hold` is called with the bytes that the request costs beyond its body, once they are known; it may raise Overloaded.

        Raises RequestRefused (permanent), Limited, Overloaded, DeadLettersFull or BrokerError (retryable: nothing was kept) or
        Defect.
        """
        self.check(caller, len(body))
        tenant = self._metrics.tenant(caller.tenant)
        now = self._now_unix_nano()
        batch_id = uuid7(nanoseconds=now)
        id_bytes: bytes = batch_id.bytes
        refusal: RequestRefused | None = None  # raised after its handler: compiled code must not await in one
        full: DeadLettersFull | None = None
        header = Header(caller.tenant, input_.source, now, id_bytes)
        reading = Reading(self, input_, body, caller, header, id_bytes)
        prints: list[bytes] = []
        try:
            if reading.is_on_loop:
                try:
                    self._on_loop.begin()
                    adapted, letters = reading.begin()(self._pause_on_loop)
                except TooLong:
                    reading.is_on_loop = False
            if not reading.is_on_loop:
                adapted, letters = await self.large_bodies.run(caller.tenant, reading.begin_after_waiting)
            if adapted.rejected:
                self.dead_letters.check(reading.budget, adapted, now)
            if self._fingerprints is not None:
                coarse = reading.has_coarse_times
                prints = self._fingerprints.of(caller, input_.route, body, key, adapted, coarse, now)
            if adapted.dead_letter_items:
                self.dead_letters.count(caller.tenant, adapted)
        except DeadLettersFull as no_room:
            full = no_room
        except RequestRefused as refused:
            refusal = refused
        except Limited:
            raise
        except Exception as defect:
            raise Defect(batch_id, defect) from defect
        if full is not None:
            # It costs its tenant what a refused request does: else its retries would be free.
            await self._charge(caller, len(body))
            self._metrics.failed(adapted)
            tenant.failed(adapted)
            raise full
        if refusal is not None:
            # What can't be read costs its tenant what it cost us: else nothing would limit it.
            await self._take(caller, None, len(body))
            tenant.refused()
            await self._keep_refused(reading.origin(), refusal, body)
            raise refusal
        if prints and self._fingerprints is not None:
            answered = self._fingerprints.find(caller.tenant, prints, now)
            if answered is not None:
                # It is durable already: so it costs what reading it cost.
                await self._take(caller, None, len(body))
                self._metrics.repeated()
                return Outcome(answered.batch_id, answered.counts)
        cost = max(len(body), adapted.row_bytes)
        if cost > len(body):
            try:
                hold(cost - len(body))
            except Exception as overloaded:
                self._metrics.failed(adapted)
                tenant.failed(adapted)
                if isinstance(overloaded, ShareExceeded):
                    self._limiter.refused(caller, len(body))
                raise
        try:
            await self._take(caller, adapted, cost)
        except RequestRefused as refused:
            refusal = refused
        except Limited as over:
            over.retry_after_s = max(over.retry_after_s, self._limiter.refused(caller, len(body)))
            raise
        if refusal is not None:
            await self._charge(caller, len(body))
            raise refusal
        if adapted.accepted_count() or adapted.rejected:
            last_print = prints[-1] if prints else b""
            receipt = self._receipts.begin(header, input_.route.encode(), adapted, letters.items, last_print)
            failure: BaseException | None = None
            try:
                await self._produce(self._with_receipt(header, adapted, receipt, prints), letters.messages)
            except BaseException as failed:  # noqa: BLE001 - cancellation too: its sender gets no acknowledgement
                failure = failed
            if failure is not None:
                self._receipts.failed(receipt)
                self._metrics.failed(adapted)
                tenant.failed(adapted)
                await self._give_back(caller, adapted, cost)
                if isinstance(failure, BrokerError) or not isinstance(failure, Exception):
                    raise failure
                raise Defect(batch_id, failure)
            self._receipts.kept(receipt)
            if prints and self._fingerprints is not None:
                self._fingerprints.note(caller.tenant, prints, id_bytes, adapted, now)
            if self._recent is not None:
                self._recent.note(id_bytes, caller.tenant, input_.source, input_.route, now, adapted, letters.items)
        self._metrics.ingested(adapted, letters.by_reason)
        tenant.ingested(adapted, len(body))
        if self._live is not None and self._live.is_watched:
            self._live.note(caller.tenant, now, adapted)
        return Outcome(batch_id, adapted)

    def _with_receipt(self, header: Header, adapted: Adapted, receipt: Receipt, prints: list[bytes]) -> list[Part]:
        """Return the parts to produce. The receipt is in the last message, or in one of its own if there is no message or no
        room. The fingerprint of each message is at its end."""
        parts = adapted.parts
        if prints and len(parts) > 1:
            parts = [
                _with_fingerprint(header, part, index, prints[index]) if index < len(parts) - 1 else part
                for index, part in enumerate(parts)
            ]
        receipt_row_bytes = row_bytes(receipt.record)
        if parts:
            last = parts[-1]
            rows = last.row_bytes + receipt_row_bytes
            payload_bytes = len(last.payload) + len(receipt.record)
            if payload_bytes <= self.message_bytes_max and rows <= self.message_row_bytes_max:
                print_ = prints[-1] if prints else b""
                return [*parts[:-1], Part(last.signal, last.payload + receipt.record, last.item_count, rows, print_)]
            if prints:
                parts = [*parts[:-1], _with_fingerprint(header, last, len(parts) - 1, prints[-1])]
                record = receipt_alone(header, receipt, len(parts))
                return [*parts, Part(last.signal, record, 0, row_bytes(record))]
        signal = parts[-1].signal if parts else _SIGNALS.get(next(iter(adapted.rejected))[0], METRICS)
        return [*parts, Part(signal, receipt.record, 0, receipt_row_bytes)]

    async def _keep_refused(self, origin: Origin, refusal: RequestRefused, body: bytes) -> None:
        """Keep the beginning of a body that was refused as a dead letter, if it can be kept: the answer to its sender is the
        same either way."""
        letters = self.dead_letters.of_request(origin, refusal.reason, refusal.message, body)
        if letters:
            with contextlib.suppress(BrokerError):
                await self._produce([], letters)

    async def _charge(self, caller: Caller, size_bytes: int) -> None:
        """Count a request that is refused for good: else no plan would limit such requests. Raises nothing."""
        if not caller.plan.is_limited:
            return
        for counted_bytes in (size_bytes, 0):
            # Where not even a request can be counted, the next is refused before it is read.
            with contextlib.suppress(Limited, RequestRefused):
                await self._limiter.take(caller, 0, counted_bytes)
                return

    async def _take(self, caller: Caller, adapted: Adapted | None, size_bytes: int) -> None:
        """`adapted`: None where the body could not be decoded."""
        if not caller.plan.is_limited:
            return
        try:
            await self._limiter.take(caller, _items(adapted), size_bytes)
        except (Limited, RequestRefused) as error:
            tenant = self._metrics.tenant(caller.tenant)
            _count(tenant, error)
            if adapted is not None:
                self._metrics.rate_limited(adapted)
                tenant.rate_limited(adapted)
            raise

    async def _give_back(self, caller: Caller, adapted: Adapted, size_bytes: int) -> None:
        if caller.plan.is_limited:
            await self._limiter.give_back(caller, _items(adapted), size_bytes)


def _with_fingerprint(header: Header, part: Part, index: int, fingerprint: bytes) -> Part:
    record = fingerprint_record(header, index, fingerprint)
    return Part(part.signal, part.payload + record, part.item_count, part.row_bytes + row_bytes(record), fingerprint)


def _plan_bytes_max(caller: Caller) -> int:
    """Return the most bytes of rows that the caller's plan ever allows at once."""
    rate = caller.plan.size_bytes
    return RATE_MAX if rate is None else rate.burst


def _count(tenant: Tenant, error: Limited | RequestRefused) -> None:
    if isinstance(error, Limited):
        tenant.limited(error.dimension)
    else:
        tenant.refused()


def _items(adapted: Adapted | None) -> int:
    return adapted.accepted_count() + adapted.rejected_count() if adapted is not None else 0
