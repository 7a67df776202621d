"""One attempt to insert a range: the whole range, its pieces, or only its missing rows.

Only data that the store refuses is not tried again: it is halved (collector/writer/piece.py), down to the item that is at
fault, while the rest is stored. A range for which the store has too little memory is halved as well, after an intent that
contains the new depth.

Invariants:
1. The pieces of a range that the store did not refuse are those at the depth of its intent. A deeper intent is made only while
   nothing of the piece that failed is stored (test_writer_memory.py).
2. In doubt, a piece is looked up before it is inserted, and after (test_writer.py,
   test_any_sequence_of_faults_ends_with_every_record_once).
3. If a range is stored in part, and the store has too little room to complete all its messages at once, they are completed in
   smaller groups (test_writer_memory.py, test_a_partly_stored_range_is_completed_message_by_message).
4. Bytes that a message lacks are never taken from the messages after it
   (test_writer.py, test_a_message_that_is_cut_takes_no_other_along).
5. Once rows may have been completed, the range is not repeated under its token: the token does not cover completed rows
   (test_writer_memory.py, test_a_completion_that_breaks_off_stores_nothing_twice).
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from collector.broker.contract import DEAD_LETTERS_TOPIC, Partition, Range
from collector.store.contract import Completed, Store, StoreError, StoreRefusedData, StoreShortage
from collector.store.payload_index import MessageKey, contents
from collector.writer.memory_shortage import MemoryShortages
from collector.writer.piece import Piece
from collector.writer.store_refusals import RefusedItem

log = structlog.get_logger(__name__)


class InsertObserver(Protocol):
    """Is notified of inserts that succeed, fail or are completed."""

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """Count one insert that is in the store. `messages` is 0 if it stored only a part of a message."""

    def write_failed(self, topic: str, kind: str) -> None:
        """Count one insert that failed. `kind` is unavailable (it is tried again) or refused (the store refused the data)."""

    def completed(self, topic: str, rows: int, in_part: int) -> None:
        """Count the rows that an interrupted insert had left out: `rows` are stored now, `in_part` are still missing."""


class RowsMissing(StoreError):
    """An insert succeeded, but not all of its rows are in the store."""


class RangeInserter:
    """Inserts ranges for the writer's task, one range at a time."""

    def __init__(
        self,
        store: Store,
        memory: MemoryShortages,
        observer: InsertObserver,
        in_thread: Callable[..., Awaitable[Any]],
        intend_halved: Callable[[Range, int], Awaitable[None]],
        *,
        refusals_max: int,
        clock: Callable[[], float],
        looks_up: Callable[[Partition], bool],
    ) -> None:
        """`in_thread` runs a blocking call in the writer's thread. `intend_halved` intends a range again, with a greater depth.
        `clock` is in seconds. `looks_up` returns whether an insert of a partition is looked up before it is believed."""
        self._store: Final = store
        self._memory: Final = memory
        self._observer: Final = observer
        self._in_thread: Final = in_thread
        self._intend_halved: Final = intend_halved
        self._refusals_max: Final = refusals_max
        self._clock: Final = clock
        self._looks_up: Final = looks_up
        self._intended_at = -math.inf  # when the current range was intended, by `clock`

    def begin_intent(self) -> None:
        """Note the time: the next range is intended now."""
        self._intended_at = self._clock()

    async def insert(self, messages: Range, piece: Piece) -> list[RefusedItem]:
        """Insert a piece. Return its refused items; all others are stored. Raises BrokerError, or StoreError, after which some
        items may be stored."""
        attempt = _Attempt(messages.in_doubt, messages.depth)
        try:
            await self._insert(piece, attempt)
        except StoreShortage as error:
            if attempt.failed is not None:
                await self._halve(messages, attempt.failed, attempt.stored, error)
            raise
        return attempt.refused

    async def _insert(self, piece: Piece, attempt: "_Attempt") -> None:
        """Insert pieces in their order, so the stored items of a message are always its first, except for refused ones."""
        if piece.level < attempt.depth and (halves := await self._in_thread(piece.halves)):
            for half in halves:
                await self._insert(half, attempt)
            return
        topic = piece.topic
        began = self._clock()
        try:
            if not await self._in_thread(piece.is_framed):
                raise StoreRefusedData("a message among several ends within a field")
            if not (attempt.in_doubt and await self._in_thread(self._store.holds, topic, piece.payload, attempt.stored)):
                if self._memory.is_dead_letter(piece):
                    attempt.refused.append(_refused(piece, self._memory.last_error))
                    return
                await self._store_piece(piece, attempt)
                await self._check_stored(piece, attempt)
                self._memory.stored(piece)
                self._observer.written(topic, piece.messages, sum(map(len, piece.parts)), self._clock() - began)
            attempt.note(piece)
        except StoreRefusedData as error:
            self._observer.write_failed(topic, "refused")
            attempt.refusals += 1
            if attempt.refusals > self._refusals_max:
                attempt.refused += [_refused(one, str(error)) for one in piece.records()]
                return
            halves = await self._in_thread(piece.halves)
            if not halves or await self._is_refused_without_items(piece):
                attempt.refused += [_refused(one, str(error)) for one in piece.records()]
                return
            for half in halves:
                await self._insert(half, attempt)
        except StoreError as error:
            self._observer.write_failed(topic, "unavailable")
            if isinstance(error, StoreShortage):
                attempt.failed = attempt.failed or piece
            elif not isinstance(error, RowsMissing):
                self._memory.unanswered(piece.partition)
            raise

    async def _store_piece(self, piece: Piece, attempt: "_Attempt") -> None:
        """Insert a piece. In doubt, tokens alone prove nothing: the rows of a known token may be missing, and the rows of a
        forgotten token may be in the store. Raises StoreError."""
        looks_up = attempt.in_doubt and await self._in_thread(self._store.can_complete, piece.topic, piece.payload)
        is_quiet = self._memory.is_quiet(piece.partition)
        if (
            looks_up
            and (is_quiet or self._memory.may_be_completed(piece.partition))
            and not await self._in_thread(self._store.untouched, piece.topic, piece.payload, attempt.stored)
        ):
            if not is_quiet:
                raise RowsMissing(
                    "rows of an interrupted insert are missing, and some may have been completed: the rest is inserted once no"
                    " other insert can bring it"
                )
            await self._complete(piece, attempt)
            return
        await self._in_thread(self._store.insert, piece.topic, piece.parts, piece.token)
        if not looks_up or await self._in_thread(self._store.holds, piece.topic, piece.payload, attempt.stored):
            return
        if not is_quiet:
            raise RowsMissing(
                "an insert succeeded, and some of its rows are missing: they are inserted once no other can bring them"
            )
        await self._complete(piece, attempt)

    async def _complete(self, piece: Piece, attempt: "_Attempt") -> None:
        """Store the missing rows of a piece. Raises StoreError.

        Without tokens, only one writer may complete a range. A writer that the partition has moved to completes nothing until
        inserts of this one have ended: `insert_outlives_s` after it found the range, and so after our intent.
        """
        if self._clock() - self._intended_at > (self._store.insert_outlives_s or math.inf) / 2:
            raise RowsMissing("rows of an interrupted insert are missing: the range gets a new intent before they are inserted")
        self._memory.completes(piece.partition)
        done = await self._completed(piece, attempt)
        if done is None:
            for half in await self._in_thread(piece.halves):
                if not await self._in_thread(self._store.holds, half.topic, half.payload, attempt.stored):
                    await self._complete(half, attempt)
            return
        rows, in_part = sum(done.rows.values()), sum(done.in_part.values())
        if not rows and not in_part:
            return
        self._observer.completed(piece.topic, rows, in_part)
        place = {"topic": piece.topic, "partition": piece.partition.index, "offset": piece.offset, "token": piece.token}
        if rows:
            log.warning("an interrupted insert is completed: its missing rows are stored", **place, rows=dict(done.rows))
        if in_part:
            log.error(
                "rows of an interrupted insert are missing: the store has some of their message and not all, and which is not"
                " known; `audit` shows the message",
                **place,
                rows_missing=dict(done.in_part),
            )

    async def _completed(self, piece: Piece, attempt: "_Attempt") -> Completed | None:
        """Complete a piece, and return the rows that were missing. Return None if the store has too little room to complete
        these messages at once. Each can be completed alone, since a completion depends on a message's own rows, and not on
        tokens. Raises StoreError."""
        earlier = [each.payload for each in attempt.earlier(piece)]
        try:
            done: Completed = await self._in_thread(self._store.complete, piece.topic, piece.payload, piece.token, earlier)
        except StoreShortage:
            if piece.messages < 2:
                raise
            return None
        return done

    async def _check_stored(self, piece: Piece, attempt: "_Attempt") -> None:
        """Look up the inserted rows while the disk is low: an insert on a full disk may succeed and leave no readable row.
        After some failures of the partition it is no longer looked up, in case the look-up itself fails. Raises StoreError."""
        if not self._looks_up(piece.partition):
            return
        if not await self._in_thread(self._store.holds, piece.topic, piece.payload, attempt.stored):
            raise RowsMissing("an insert succeeded on a full disk, and its rows are not found: it is repeated")

    async def _is_refused_without_items(self, piece: Piece) -> bool:
        """Return whether the store refuses the piece's record even without items. Then no item is at fault alone, and a search
        among them is useless. Raises StoreError."""
        without_items = await self._in_thread(piece.without_items)
        if without_items is None:
            return False
        try:
            await self._in_thread(self._store.insert, without_items.topic, without_items.parts, without_items.token)
        except StoreRefusedData:
            return True
        return False

    async def _halve(self, messages: Range, piece: Piece, stored: Mapping[MessageKey, int], error: StoreShortage) -> None:
        """Intend the range once more, to be inserted in smaller pieces, if that is due and safe. Make a single item a dead
        letter instead. Raises StoreError, BrokerError."""
        is_one = not await self._in_thread(piece.halves)
        if not self._memory.failed(piece, error, is_one=is_one):
            return
        if not await self._in_thread(self._store.untouched, piece.topic, piece.payload, stored):
            return
        if is_one:
            self._memory.mark_dead_letter(piece, error)
            return
        await self._intend_halved(messages, piece.level + 1)
        self._memory.halved()
        log.warning(
            "the store has too little room for an insert, which is cut in smaller pieces",
            topic=piece.topic,
            partition=piece.partition.index,
            offset=piece.offset,
            row_bytes=piece.row_bytes(),
            pieces=2 ** (piece.level + 1),
            error=str(error),
        )


@dataclass
class _Attempt:
    """Keeps what one attempt at a range has stored so far, and what the store refused."""

    in_doubt: bool
    depth: int
    refused: list[RefusedItem] = field(default_factory=list)
    refusals: int = 0
    stored: Counter[MessageKey] = field(default_factory=Counter)  # items of messages that are inserted in parts
    pieces: list[Piece] = field(default_factory=list)  # the stored pieces of the last message that is inserted in parts
    failed: Piece | None = None  # the first piece for which the store had too little room

    def note(self, piece: Piece) -> None:
        """Note that a piece is stored. The parts of one message share its batch id and part, so their items are counted
        together."""
        if not piece.messages and piece.topic != DEAD_LETTERS_TOPIC:
            with suppress(ValueError):
                self.stored.update(contents(piece.payload).items)
            self.pieces = [*self.earlier(piece), piece]

    def earlier(self, piece: Piece) -> list[Piece]:
        """Return the pieces of the same message that are stored."""
        return [each for each in self.pieces if each.offset == piece.offset] if not piece.messages else []


def _refused(piece: Piece, error: str) -> RefusedItem:
    return RefusedItem(piece.partition, piece.log, piece.offset, piece.path, piece.payload, error, piece.topic)
