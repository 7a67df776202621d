"""The connection that writes and checkpoints. No other connection does."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from collector.broker.contract import BrokerDown, BrokerError
from collector.broker.local_log import schema
from collector.broker.local_log.carve import Carved
from collector.broker.local_log.chunks import OFFSET_MASK, chunk_key, count, split
from collector.broker.local_log.limits import LocalLogLimits
from collector.broker.local_log.lineage import EPOCHS_MAX, Branch, Epoch, new_epoch
from collector.broker.local_log.origin import epoch_row, read_epochs, read_identities
from collector.broker.local_log.plan import LogAppend, LogPlan, PartitionHead, Statement, Work

# A file without messages: its header and schema, one pointer map, the five tables and the index.
_EMPTY_PAGES: Final = 8
# The most bytes of the write-ahead log while the disk is low.
_WAL_LOW_BYTES: Final = 1024 * 1024
_VACUUM_STEP_PAGES: Final = 4 * 1024 * 1024 // schema.PAGE_BYTES


class Gap(NamedTuple):
    """Missing messages: from `start` up to but not including `end`."""

    topic: str
    start: int
    end: int


class FileDamaged(sqlite3.DatabaseError):
    """SQLite can open the file, but its content is not that of a log."""


class Database:
    """The connection that writes. One thread at a time."""

    def __init__(self, file: Path, limits: LocalLogLimits, reading: threading.Lock) -> None:
        self.file: Final = file
        self.heads: dict[str, PartitionHead] = {}
        self.identities: tuple[str, ...] = ()
        """The file's own identity, and those of the files that it was rebuilt from, the latest first."""
        self.lineage: tuple[Epoch, ...] = ()
        """The last starts, oldest first."""
        self.is_new = False
        self.had_witness = True
        """Whether the file is of a version that keeps a witness next to it (collector/broker/local_log/witness.py)."""
        self.was_open = False
        """Whether the file was not closed when it was used last."""
        self.used_bytes = 0
        self._free_bytes = 0
        self._limits: Final = limits
        self._reading: Final = reading
        self._wal: Final = file.with_name(f"{file.name}-wal")
        # check_same_thread: opened in one thread, used in another, closed in a third, one after the other.
        self._connection: Final = sqlite3.connect(file, schema.LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connection.text_factory = _text
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        # One page without a table: the first start was killed.
        if self._pragma("page_count") <= 1 and not execute(schema.HAS_TABLES).fetchone()[0]:
            self.is_new = True
            execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        elif self._pragma("application_id") != schema.APPLICATION_ID:
            raise FileDamaged("it is a database of something else")
        elif self._pragma("user_version") not in (schema.FORMER_VERSION, schema.VERSION):
            version = self._pragma("user_version")
            kind = sqlite3.DatabaseError if 0 < version <= schema.PLAUSIBLE_VERSION_MAX else FileDamaged
            raise kind(f"its version is {version}, and this program reads {schema.VERSION}")
        if (mode := execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
            raise sqlite3.DatabaseError(f"the file system allows no write-ahead log, only journal mode {mode}")
        execute("PRAGMA synchronous = FULL")
        # On by default in Debian's build: it would write zeros over every page that is freed.
        execute("PRAGMA secure_delete = OFF")
        # `tidy` checkpoints, and no transaction does: only then is it known that the write-ahead log is whole.
        execute("PRAGMA wal_autocheckpoint = 0")
        execute(f"PRAGMA journal_size_limit = {self._limits.wal_bytes_max}")
        if self._pragma("application_id") == 0:
            self._connection.executescript(f"BEGIN; {schema.SCHEMA} {schema.IDENTITY} {schema.CHECKSUMS} COMMIT")
            self.had_witness = False
        elif self._pragma("user_version") == schema.FORMER_VERSION:
            has_identity = bool(execute(schema.HAS_IDENTITY).fetchone()[0])
            self._connection.executescript(f"BEGIN; {'' if has_identity else schema.IDENTITY} {schema.CHECKSUMS}")
            for topic, head in heads_in(self._connection, verified=False).items():
                execute("UPDATE partitions SET checksum = ? WHERE id = ?", (head.checksum(topic), head.id))
            execute("COMMIT")
            self.had_witness = False
        execute(schema.STATE)
        execute(schema.EPOCHS)
        if not execute(schema.HAS_EPOCH_CHECKSUMS).fetchone()[0]:
            execute(schema.ADD_EPOCH_CHECKSUMS)
        try:
            self.identities, self.lineage = read_identities(self._connection), read_epochs(self._connection)
        except ValueError as error:
            raise FileDamaged(str(error)) from error
        self.was_open = bool(execute(schema.WAS_OPEN).fetchone()[0])
        self._read_heads()
        self._measure()

    def _read_heads(self) -> None:
        for topic, head in heads_in(self._connection).items():
            below = self._connection.execute(schema.BELOW, (chunk_key(head.id, 0), chunk_key(head.id, head.committed)))
            if below.fetchone()[0]:
                raise FileDamaged(f"{topic} has messages before offset {head.committed}, which is committed")
            self.heads[topic] = head._replace(end=max(head.committed, self._end(topic, head.id), head.floor))

    def settle(self, branch: Branch | None = None) -> None:
        """Make durable what a crash left in the write-ahead log, which may be in the page cache only. Note in the file that it
        is in use, and this start. `branch` is the branch that was found at this start."""
        self._connection.execute(schema.SET_STATE, (1,))
        self.inherit([new_epoch(self.heads, branch)])
        self.truncate_wal()

    def inherit(self, epochs: Sequence[Epoch]) -> None:
        """Add starts to those that are known. Raises sqlite3.Error."""
        for epoch in epochs:
            self._connection.execute(schema.ADD_EPOCH, epoch_row(epoch))
        self._connection.execute(schema.DROP_EPOCHS, (EPOCHS_MAX,))
        self.lineage = (*self.lineage, *epochs)[-EPOCHS_MAX:]

    def check(self) -> None:
        """Check the structure of the file, which reads all of it. Raises FileDamaged if it is not sound."""
        faults = [row[0] for row in self._connection.execute("PRAGMA quick_check(1)").fetchall()]
        if faults != ["ok"]:
            raise FileDamaged(f"quick_check: {faults[0]}")

    def message(self, id_: int, offset: int) -> bytes | None:
        """Return the message at an offset of a partition; None if it is missing or damaged."""
        topic = next((topic for topic, head in self.heads.items() if head.id == id_), None)
        row = self._connection.execute(schema.HOLDS, (chunk_key(id_, 0), chunk_key(id_, max(offset, 0)))).fetchone()
        if topic is None or row is None:
            return None
        index = offset - (row[0] & OFFSET_MASK)
        messages = split(topic, *row)
        return messages[index] if 0 <= index < len(messages) else None

    @property
    def identity(self) -> str:
        """Return the file's own identity."""
        return self.identities[0]

    def restore(
        self,
        heads: Mapping[str, PartitionHead],
        carved: Iterable[Carved],
        report: Callable[[Sequence[Gap]], None],
        former: Sequence[str] = (),
        *,
        is_final: bool = False,
    ) -> None:
        """Add the chunks that are not here yet, and go on where `heads` ends. `report` is called with the gaps that are left,
        before it is committed that the log goes on behind them. `former` are identities of the files that this one is rebuilt
        from. `is_final`: messages behind `heads` were refused. Raises sqlite3.Error, OSError."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for identity in former:
                if identity not in self.identities:
                    execute(schema.ADD_IDENTITY, (identity,))
                    self.identities = (*self.identities, identity)
            ends = {topic: head.end for topic, head in heads.items()}
            for topic, head in heads.items():
                head = head._replace(floor=head.end)  # noqa: PLW2901
                log, depth = head.intent_log or None, head.intent_depth
                values = (head.id, topic, head.committed, head.intent, log, depth, head.floor, head.checksum(topic))
                execute(schema.RESTORE_HEAD, values)
            self.heads = dict(heads)
            for topic, key, lengths, payload, checksums in carved:
                end = (key & OFFSET_MASK) + count(lengths)
                if end > heads[topic].committed and not (is_final and end > heads[topic].end):
                    execute(schema.RESTORE, (key, lengths, payload, checksums))
                    ends[topic] = max(ends[topic], end)
            for head in heads.values():
                execute(schema.DELETE, (chunk_key(head.id, 0), chunk_key(head.id, head.committed)))
            report([gap for topic, head in heads.items() for gap in self._gaps(topic, head, ends[topic])])
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise
        self._read_heads()
        self._measure()

    def branch_off(self, committed: Mapping[str, int], report: Callable[[], None]) -> None:
        """Get another identity, and delete the messages before `committed`, which are stored. Call `report` before that is
        committed. Raises sqlite3.Error, OSError."""
        execute = self._connection.execute
        heads: dict[str, PartitionHead] = {}
        for topic, head in self.heads.items():
            stored = min(committed.get(topic, 0), head.end)
            if stored > head.committed:
                head = head._replace(committed=stored, intent=None, intent_log="", intent_depth=0)  # noqa: PLW2901
            heads[topic] = head
        identities = (os.urandom(16).hex(), *self.identities)
        execute("BEGIN IMMEDIATE")
        try:
            execute(schema.CLEAR_IDENTITIES)
            for identity in identities:
                execute(schema.ADD_IDENTITY, (identity,))
            for topic, head in heads.items():
                log, depth = head.intent_log or None, head.intent_depth
                values = (head.id, topic, head.committed, head.intent, log, depth, head.floor, head.checksum(topic))
                execute(schema.RESTORE_HEAD, values)
                execute(schema.DELETE, (chunk_key(head.id, 0), chunk_key(head.id, head.committed)))
            report()
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise
        self.identities, self.heads = identities, heads
        self._measure()

    def _gaps(self, topic: str, head: PartitionHead, end: int) -> Iterator[Gap]:
        expected = head.committed
        places = self._connection.execute(schema.PLACES, (chunk_key(head.id, 0), chunk_key(head.id, OFFSET_MASK)))
        for key, messages in places:
            start = key & OFFSET_MASK
            if start > expected:
                yield Gap(topic, expected, start)
            expected = max(expected, start + messages)
        if expected < end:
            yield Gap(topic, expected, end)

    def present(self, topic: str, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges of these offsets that are here and not committed. Raises sqlite3.Error."""
        head = self.heads.get(topic)
        if head is None:
            return []
        present: list[tuple[int, int]] = []
        at, end = max(start, head.committed), min(end, head.end)
        for gap in (*self._gaps(topic, head, head.end), Gap(topic, end, end)):
            if at < min(gap.start, end):
                present.append((at, min(gap.start, end)))
            at = max(at, gap.end)
        return present

    def _end(self, topic: str, id_: int) -> int:
        values = (chunk_key(id_, 0), chunk_key(id_, OFFSET_MASK))
        last = self._connection.execute(schema.HOLDS, values).fetchone()
        if last is None:
            return 0
        if not any(message is not None for message in split(topic, *last)):
            raise FileDamaged(f"the last messages of {topic} do not fit their checksums")
        return int(last[0] & OFFSET_MASK) + count(last[1])

    def transact(self, works: Sequence[Work], shortage: str | None = None, gone: str | None = None) -> list[BrokerError | None]:
        """Execute `works` in one durable transaction. Return why each was refused, or None. `shortage` is why only dead letters
        are appended; `gone` is why nothing is. Raises sqlite3.Error: then nothing was done."""
        plan = LogPlan(self.heads, self._limits.bytes_max - self.used_bytes, shortage, gone)
        refusals = [plan.add(work) for work in works]
        self._execute(plan.statements())
        self.heads = plan.heads
        return refusals

    def withdraw(self, before: Mapping[str, PartitionHead]) -> None:
        """Delete the messages after the ends that the partitions had. Raises sqlite3.Error."""
        statements: list[Statement] = []
        heads: dict[str, PartitionHead] = {}
        for topic, head in self.heads.items():
            end = before[topic].end if topic in before else 0
            statements.append((schema.WITHDRAW, (chunk_key(head.id, end), chunk_key(head.id, OFFSET_MASK))))
            heads[topic] = head._replace(end=min(head.end, end))
        self.heads = heads  # even if the deletion fails: then no append succeeds, since its offsets are taken
        self._execute(statements)

    def _execute(self, statements: Sequence[Statement]) -> None:
        connection = self._connection
        if len(statements) == 1:  # it is a transaction by itself, with only one trip through the interpreter lock
            connection.execute(*statements[0])
        elif statements:
            try:
                connection.execute("BEGIN IMMEDIATE")
                for sql, values in statements:
                    connection.execute(sql, values)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some errors have rolled back already
                    connection.execute("ROLLBACK")
                raise

    def tidy(self, idle: Callable[[], bool], *, is_disk_low: bool = False) -> bool:
        """Free space beyond the spare space (all, if the disk is low): one step, and more while `idle` returns True. Bound the
        write-ahead log. Return whether the files have changed. Raises sqlite3.Error: then try again later."""
        limits = self._limits
        is_changed = False
        self._measure()
        spare = 0 if is_disk_low else max(limits.spare_bytes_max, self.used_bytes)
        while self._free_bytes > spare:
            # Not `execute`: it would step once, and so free one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_STEP_PAGES})")
            is_changed = True
            self._measure()
            if self._free_bytes <= spare:
                self.truncate_wal()  # only a checkpoint makes the file itself shorter
            if not idle():
                break
        if self._wal.stat().st_size > (_WAL_LOW_BYTES if is_disk_low else 4 * limits.wal_bytes_max):
            self.truncate_wal()
            is_changed = True
        return is_changed

    def checkpoint(self) -> None:
        """Copy the pages in the write-ahead log into the file, as far as no reader holds them. Raises sqlite3.Error."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def truncate_wal(self) -> None:
        """Copy the write-ahead log into the file, and empty it, once no reader uses it. Raises sqlite3.Error."""
        with self._reading:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _measure(self) -> None:
        pages, free = self._connection.execute("SELECT * FROM pragma_page_count, pragma_freelist_count").fetchone()
        self.used_bytes = max(0, pages - free - _EMPTY_PAGES) * schema.PAGE_BYTES
        self._free_bytes = free * schema.PAGE_BYTES

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self, *, is_done: bool = False) -> None:
        """Close the connection. `is_done`: the file was in use, and has everything that was written, so note that it is
        closed."""
        if is_done:
            with suppress(sqlite3.Error):
                self._connection.execute(schema.SET_STATE, (0,))
        self._connection.close()


def transact_in_place(
    database: Database, works: Sequence[Work], shortage: str | None, gone: str | None, look: Callable[[], str | None]
) -> tuple[list[BrokerError | None], str | None]:
    """Execute Database.transact, and look whether the files are still in their places before anything is acknowledged. If not,
    withdraw the appends, since their senders get an error. Also return why they are not. Raises sqlite3.Error."""
    before = database.heads
    refusals = database.transact(works, shortage, gone)
    if gone is not None or (gone := look()) is None or not any(isinstance(work, LogAppend) for work in works):
        return refusals, gone
    database.withdraw(before)
    refused = BrokerDown(f"cannot append: {gone}")
    taken = zip(works, refusals, strict=True)
    return [refused if isinstance(work, LogAppend) else refusal for work, refusal in taken], gone


def _text(content: bytes) -> str:
    """Decode a text. Damaged bytes raise no error, since the text does not fit its checksum anyway."""
    return content.decode(errors="replace")


def heads_in(connection: sqlite3.Connection, *, verified: bool = True) -> dict[str, PartitionHead]:
    """Return the positions of the partitions, without their ends. Raises sqlite3.Error, FileDamaged."""
    heads: dict[str, PartitionHead] = {}
    for id_, topic, committed, intent, log, depth, floor, checksum in connection.execute(schema.HEADS).fetchall():
        head = PartitionHead(id_, committed, committed, intent, log or "", depth or 0, floor or 0)
        if verified and checksum != head.checksum(topic):
            raise FileDamaged(f"the position of {topic} does not fit its checksum")
        heads[topic] = head
    return heads


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, so that each survives a power cut."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        parent = os.open(directory.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
