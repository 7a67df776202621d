"""Decide when a range is cut into smaller pieces because the store has too little memory or disk for it, and when a single item
becomes a dead letter.

Whether an insert exceeds the limit of one insert depends on that insert alone: it is cut at once. The server's memory depends
on everything that runs there, and waiting may be all that is needed. So a range is cut only after several failures, and a
server that is out of memory for an hour makes no dead letters. A full disk makes none either: they would need room too.

Invariants:
1. A piece is not cut while an insert of it may still be running (test_writer_memory.py,
   test_an_insert_without_an_answer_is_waited_for_before_it_is_cut).
2. A single item becomes a dead letter only if it needs more memory than one insert may have, or if other inserts succeeded
   between its attempts (test_writer_memory.py, test_a_server_out_of_memory_makes_no_dead_letters).
3. While the disk is full, a range is cut into pieces of a mebibyte, and no further, however long that lasts
   (test_writer_memory.py, test_a_disk_that_stays_full_cuts_no_range_to_items).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from collector.broker.contract import DEAD_LETTERS_TOPIC, Partition, Range
from collector.store.contract import Store, StoreOutOfMemory, StoreOutOfSpace, StoreShortage
from collector.writer.piece import Piece

# Consecutive failures before a range is cut if the server has too little memory, and not if it exceeds the limit of one insert.
_FAILURES: Final = 4
# Attempts at a single item before it becomes a dead letter, if it exceeds the limit of one insert, or the server's memory.
_ITEM_FAILURES: Final = 2
_ITEM_FAILURES_SERVER: Final = 8
_ROW_BYTES_MIN: Final = 1024 * 1024


@dataclass
class _Shortage:
    """Counts the failures of a partition's current range for want of memory or disk."""

    token: str = ""  # the token of the piece that failed last; empty: none, or it was stored
    failures: int = 0  # consecutive failures of that piece
    stored: int = 0  # the number of successful inserts when it failed first
    dead_letters: set[str] = field(default_factory=set)  # tokens of items that become dead letters


class MemoryShortages:
    """Keeps the shortages of one writer's partitions, and the size of its next ranges."""

    def __init__(self, row_bytes_max: int, store: Store, clock: Callable[[], float]) -> None:
        self.row_bytes_max = row_bytes_max
        """The limit for new ranges. It is halved after a shortage, and rises again while inserts succeed."""
        self.last_error = ""
        self._limit: Final = row_bytes_max
        self._store: Final = store
        self._clock: Final = clock
        self._stored = 0  # inserts that succeeded
        self._ours: Final[set[tuple[Partition, int]]] = set()  # ranges that were intended here
        self._quiet: Final[dict[Partition, float]] = {}  # when no earlier insert can be running any more, by the clock
        self._shortages: Final[dict[Partition, _Shortage]] = {}
        self._completed: Final[set[Partition]] = set()  # rows of the current range may have been completed

    def owns(self, partitions: Collection[Partition]) -> None:
        """Note which partitions are ours now. Forget the state of all others: it may be outdated when they come back."""
        self._ours.difference_update([each for each in self._ours if each[0] not in partitions])
        self._completed.intersection_update(partitions)
        for known in (self._quiet, self._shortages):
            for partition in [partition for partition in known if partition not in partitions]:
                del known[partition]

    def found_in_doubt(self, messages: Range) -> None:
        """Note that an earlier attempt at this range may have left an insert that is still running."""
        if (messages.partition, messages.start) not in self._ours:
            self.unanswered(messages.partition)
            self._completed.add(messages.partition)

    def completes(self, partition: Partition) -> None:
        """Note that rows of the partition's current range are completed from now on."""
        self._completed.add(partition)

    def may_be_completed(self, partition: Partition) -> bool:
        """Return whether some rows of the current range may have been completed, here or in another process. The range's token
        does not cover such rows, so a repetition of the insert would store them again."""
        return partition in self._completed

    def intended(self, messages: Range) -> None:
        self._ours.add((messages.partition, messages.start))

    def committed(self, messages: Range) -> None:
        self._ours.discard((messages.partition, messages.start))
        self._completed.discard(messages.partition)
        self._shortages.pop(messages.partition, None)
        self._quiet.pop(messages.partition, None)

    def unanswered(self, partition: Partition) -> None:
        """Note that an insert was begun whose outcome is not known."""
        self._quiet[partition] = self._clock() + self._store.insert_outlives_s

    def is_quiet(self, partition: Partition) -> bool:
        """Return whether no earlier insert of this partition can still be running."""
        return self._clock() >= self._quiet.get(partition, 0.0)

    def stored(self, piece: Piece) -> None:
        self._stored += 1
        self.row_bytes_max = min(self._limit, self.row_bytes_max + self.row_bytes_max // 4)
        shortage = self._shortages.get(piece.partition)
        if shortage is not None and shortage.token == piece.token:
            shortage.token = ""

    def halved(self) -> None:
        self.row_bytes_max = max(_ROW_BYTES_MIN, self.row_bytes_max // 2)

    def failed(self, piece: Piece, error: StoreShortage, *, is_one: bool) -> bool:
        """Count the failure. Return whether to cut the piece, or, for a single item, whether to make it a dead letter."""
        shortage = self._shortages.setdefault(piece.partition, _Shortage())
        if shortage.token != piece.token:
            shortage.token, shortage.failures, shortage.stored = piece.token, 0, self._stored
        shortage.failures += 1
        if not self.is_quiet(piece.partition):
            return False
        if isinstance(error, StoreOutOfSpace):
            return not is_one and shortage.failures >= _FAILURES and piece.row_bytes() > _ROW_BYTES_MIN
        assert isinstance(error, StoreOutOfMemory)
        if not is_one:
            return error.of_this_insert or shortage.failures >= _FAILURES
        if piece.topic == DEAD_LETTERS_TOPIC:
            return False
        if error.of_this_insert:
            return shortage.failures >= _ITEM_FAILURES
        others = self._stored - shortage.stored
        is_large = piece.row_bytes() > self._limit
        return shortage.failures >= _ITEM_FAILURES_SERVER and (is_large or others >= _ITEM_FAILURES_SERVER)

    def mark_dead_letter(self, piece: Piece, error: StoreShortage) -> None:
        """Note that a single item becomes a dead letter at the next attempt."""
        self._shortages[piece.partition].dead_letters.add(piece.token)
        self.last_error = str(error)

    def is_dead_letter(self, piece: Piece) -> bool:
        shortage = self._shortages.get(piece.partition)
        return shortage is not None and piece.token in shortage.dead_letters
