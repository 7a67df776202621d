"""Reads the body of one request: accepted items become messages, and rejected items become dead letters.

A small body is read on the event loop, a large one in a thread (large_bodies.py).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from infrasage.v1.dead_letter_pb2 import PayloadForm

from adapters.codec.pieces import PiecesCount
from adapters.record import Adapted, Header
from adapters.rules import NO_RULES, Rules
from collector.ingest.large_bodies import DIRECT_BYTES_MAX
from collector.ingest.on_loop import TooLong
from collector.ingest.validate import LimitRules, Limits, TimeWindow
from collector.records.dead_letter import ENTRY_BYTES_MAX, NO_BUDGET, NOTHING_KEPT, Budget, DeadLetters, Kept, Origin
from collector.tenancy.identity import Caller
from collector.tenancy.plans import RATE_MAX

# (body, header, rules, message_bytes_max). Raises RequestRefused.
Adapt = Callable[[bytes, Header, Rules, int], Adapted]
# (elements_max)
CountPieces = Callable[[int], PiecesCount]

# The most dead letters that are made on the event loop for one body: each takes 12 us.
_LETTERS_ON_LOOP_MAX: Final = 250
# For each of its bytes, an honest body takes up to 1.5 bytes of work (`Rules.work_bytes`), and a body with a repair at each
# field takes fifty.
_HONEST_WORK: Final = 2
_NOTHING_READ: Final = Adapted()


class Input(NamedTuple):
    """One route for telemetry: the adapter of its bodies, and its names in records, receipts and dead letters."""

    adapt: Adapt
    count_pieces: CountPieces
    source: int
    route: str  # the HTTP path or gRPC method
    payload_form: PayloadForm  # the form in which the adapter keeps a rejected item


class BodyReader:
    """The limits and dead letters that all requests of a process share. `message_bytes_max` and `message_row_bytes_max` limit
    each message."""

    def __init__(
        self, limits: Limits, dead_letters: DeadLetters, *, message_bytes_max: int, message_row_bytes_max: int
    ) -> None:
        self.limits: Final = limits
        self.dead_letters: Final = dead_letters
        self.message_bytes_max: Final = message_bytes_max
        self.message_row_bytes_max: Final = message_row_bytes_max


class Reading:
    """The part of one request's work that needs no event loop."""

    def __init__(
        self,
        reader: BodyReader,
        input_: Input,
        body: bytes,
        size_bytes: int,
        caller: Caller,
        header: Header,
        batch_id: bytes,
        count: PiecesCount | None = None,
    ) -> None:
        """`size_bytes` is the size that counts for the plan. `count` has counted the body while it was decompressed."""
        self._reader: Final = reader
        self.input: Final = input_
        self.body: Final = body
        self.size_bytes: Final = size_bytes
        self.caller: Final = caller
        self.header: Final = header
        self.batch_id: Final = batch_id
        self._plan_row_bytes_max: Final = _plan_bytes_max(caller)
        self._window: Final = reader.limits.window_of(input_.payload_form, caller.tenant, caller.plan.past_max_s)
        # The results of reading the body.
        self.adapted: Adapted = _NOTHING_READ
        self.letters: Kept = NOTHING_KEPT
        self.budget: Budget = NO_BUDGET
        self.has_coarse_times: bool = False
        self.is_on_loop: bool = len(body) <= DIRECT_BYTES_MAX
        # Whether the number of the body's elements is already known to be allowed.
        self._is_counted: Final[bool] = count is not None and count.is_sure and count.size_bytes == len(body)
        self._rules: Rules = NO_RULES

    def begin(self) -> Callable[[Callable[[], None] | None], None]:
        """Note how much is left of the tenant's caps on dead letters, and return the function that reads the body."""
        self.budget = self._reader.dead_letters.budget(self.caller.tenant, self.header.received_time_unix_nano)
        return self._read

    def _read(self, pause: Callable[[], None] | None) -> None:
        """Adapt and validate the items, and make dead letters of rejected items. Raises RequestRefused, and TooLong on the
        event loop.

        `pause` is called from time to time.
        """
        reader = self._reader
        received = self.header.received_time_unix_nano
        rules = body_rules(
            reader.limits, received, reader.dead_letters, self.budget, reader.message_row_bytes_max, self._window, pause
        )
        self._rules = rules
        if self._is_counted:
            rules.counted_body = self.body
        rules.plan_row_bytes_max = self._plan_row_bytes_max
        # Each message leaves room for the other fields of a dead letter that holds it.
        adapted = self.input.adapt(self.body, self.header, rules, reader.message_bytes_max - ENTRY_BYTES_MAX)
        self.adapted = adapted
        self.has_coarse_times = rules.has_coarse_times
        if adapted.rejected:
            if self.is_on_loop and adapted.dead_letter_items > _LETTERS_ON_LOOP_MAX:
                raise TooLong
            self.letters = reader.dead_letters.make(self.origin(), adapted)

    def cost_bytes(self) -> int:
        """Return the cost of reading the body, in bytes that count for the plan.

        The cost is the body's size, or half of its work (`Rules.work_bytes`) if that is more, which it is not for honest
        bodies. The work counts for at most half of what the plan allows at once, so that such a request still passes."""
        return max(self.size_bytes, min(int(self._rules.work_bytes) // _HONEST_WORK, self._plan_row_bytes_max // 2))

    def origin(self) -> Origin:
        """Return the request's fields in its dead letters. Call it only for rejected items, since the call is interpreted."""
        input_ = self.input
        return Origin(
            self.caller.tenant,
            input_.source,
            input_.route,
            self.header.received_time_unix_nano,
            self.batch_id,
            input_.payload_form,
        )


def body_rules(
    limits: Limits,
    received_time_unix_nano: int,
    dead_letters: DeadLetters,
    budget: Budget,
    message_row_bytes_max: int,
    window: TimeWindow,
    pause: Callable[[], None] | None = None,
) -> LimitRules:
    """Return the rules for one body. `budget` limits its dead letters. `pause` is called from time to time."""
    rules = LimitRules(
        limits,
        received_time_unix_nano,
        dead_letter_items_max=budget.items,
        dead_letter_bytes_max=budget.size_bytes,
        message_row_bytes_max=message_row_bytes_max,
        pause=pause,
        window=window,
    )
    rules.item_bytes_max = limits.item_bytes_max - ENTRY_BYTES_MAX
    rules.dead_letter_cut_bytes = dead_letters.payload_bytes_max
    return rules


def _plan_bytes_max(caller: Caller) -> int:
    """Return the most bytes of rows that the caller's plan allows at once."""
    rate = caller.plan.size_bytes
    return RATE_MAX if rate is None else rate.burst
