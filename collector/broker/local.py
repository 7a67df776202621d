"""The local durable log: the broker of the embedded form, in one SQLite file.

The law: an append is answered after the fsync of the one transaction that holds all of its messages. One thread with one
connection writes and checkpoints, and nobody else ever does: SQLite before 3.51.3 can corrupt a WAL database where two
connections write or checkpoint at the same moment (sqlite.org/wal.html, "the WAL-reset bug").

Group commit: whatever waits when the thread is free shares its next transaction. Messages of one topic that commit together
share a row, a *chunk*, as record batches do in Kafka: each row read or written costs a trip through Python's interpreter lock.
docs/adr/0004-local-log.md has the reasons and the measurements.
"""

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, assert_never

import structlog

from collector.broker.contract import (
    DEAD_LETTERS_TOPIC,
    BrokerDown,
    BrokerError,
    BrokerFull,
    Message,
    Partition,
    Position,
    Range,
)

FILE_NAME: Final = "messages.sqlite"

_APPLICATION_ID: Final = 0x49534C47  # "ISLG": tells our file from anyone else's database
_VERSION: Final = 1
# Measured: with 4 KiB a large message is a chain of 128 pages, with 64 KiB a small commit writes 128 KiB.
_PAGE_BYTES: Final = 16 * 1024
# A file without messages: its header and schema, one pointer map, the two tables and the index.
_EMPTY_PAGES: Final = 5
_VACUUM_STEP_PAGES: Final = 4 * 1024 * 1024 // _PAGE_BYTES
# Small messages share a row up to here; it bounds what is read in vain where a range ends within a row.
_CHUNK_BYTES: Final = 256 * 1024
_MESSAGE_OVERHEAD_BYTES: Final = 16
# A chunk's key is partition << 48 | offset of its first message: 34 years of 260,000 messages a second.
_OFFSET_BITS: Final = 48
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1
# How long to wait for a lock that somebody's sqlite3 shell holds.
_LOCK_TIMEOUT_S: Final = 5.0

_SCHEMA: Final = f"""
CREATE TABLE partitions (id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE, committed INTEGER NOT NULL, intent INTEGER) STRICT;
CREATE TABLE chunks (key INTEGER PRIMARY KEY, lengths BLOB NOT NULL, payload BLOB NOT NULL) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""
_INSERT: Final = "INSERT INTO chunks (key, lengths, payload) VALUES (?, ?, ?)"
# A chunk that the range ends in stays until its last message is committed.
_DELETE: Final = "DELETE FROM chunks WHERE key >= ?1 AND key < ?2 AND key + length(lengths) / 4 <= ?2"
# From the chunk that holds the first offset, which need not be its first.
_SELECT: Final = """
SELECT key, lengths, payload FROM chunks
WHERE key >= coalesce((SELECT max(key) FROM chunks WHERE key BETWEEN ?1 AND ?2), ?2) AND key < ?3
ORDER BY key
"""

_Statement = tuple[str, tuple[object, ...]]


class LocalLogUnusable(Exception):
    """The file can't be opened as a local log; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class LocalLogLimits:
    """Sizes in bytes. On disk the log takes at most about `bytes_max` + 4 * `wal_bytes_max` + 2 * `commit_bytes_max`."""

    bytes_max: int  # messages not yet committed, as the pages they fill; past it: BrokerFull
    waiting_bytes_max: int  # appends that no transaction has taken yet; past it: BrokerDown
    commit_bytes_max: int  # messages that share a transaction
    wal_bytes_max: int  # the write-ahead log before it is checkpointed; four times that is never passed for long
    spare_bytes_max: int  # freed space that the file keeps for reuse, if that is more than its messages take
    append_timeout_s: float  # how long an append may wait for its transaction to begin


class _Head(NamedTuple):
    """Where a partition stands."""

    id: int
    committed: int  # the first offset that is not stored yet
    end: int  # the next message's offset
    intent: int | None  # the end of the range that is about to be written, which starts at `committed`


_NO_HEAD: Final = _Head(0, 0, 0, None)  # of a topic that nothing was appended to


class _Append(NamedTuple):
    messages: Sequence[Message]


class _Intend(NamedTuple):
    messages: Range


class _Commit(NamedTuple):
    messages: Range


class _Probe(NamedTuple):
    """Writes nothing new, durably: shows whether the file can be written."""


_Work = _Append | _Intend | _Commit | _Probe


class _Request:
    """Work that waits for the writer thread. `work` is None once it was withdrawn."""

    __slots__ = ("done", "size", "taken", "work")

    def __init__(self, work: _Work, size: int, done: "asyncio.Future[None]") -> None:
        self.work: _Work | None = work
        self.size: Final = size
        self.done: Final = done
        self.taken = False


class LocalLog:
    """Producer and Consumer (collector.broker.contract) over one file. Belongs to the event loop that opened it."""

    def __init__(self, database: "_Database", reader: "_Reader", limits: LocalLogLimits, topics: Sequence[str]) -> None:
        """Use `open`."""
        self.failure: str | None = None
        """Why the last transaction failed; None: it did not."""
        self._file: Final = database.file
        self._limits: Final = limits
        self._loop: Final = asyncio.get_running_loop()
        self._logger: Final = structlog.get_logger(__name__)
        self._heads = database.heads
        self._turns: Final = deque(topics)  # round-robin: the next to be read stands first
        self._appended: Final = asyncio.Event()
        self._waiting: Final[deque[_Request]] = deque()
        self._waiting_bytes = 0
        self._closing = False
        self._changed: Final = threading.Condition()  # guards the three above
        self._database: Final = database
        self._reader: Final = reader
        self._read_thread: Final = ThreadPoolExecutor(1, "local-log-read")
        self._write_thread: Final = threading.Thread(target=self._run, name="local-log-write", daemon=True)
        self._write_thread.start()

    @classmethod
    async def open(cls, directory: Path, limits: LocalLogLimits, topics: Collection[str]) -> Self:
        """Open or create the file in `directory`. `topics` are those that `poll` reads. Raises LocalLogUnusable."""
        database, reader = await asyncio.to_thread(_open, directory / FILE_NAME, limits)
        return cls(database, reader, limits, tuple(topics))

    async def close(self) -> None:
        """Finish what waits already, refuse what comes (BrokerDown), and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._appended.set()
        await asyncio.to_thread(self._write_thread.join)
        # The reader first: the last connection to close checkpoints, and that must be the one that writes.
        await asyncio.to_thread(self._read_thread.shutdown)
        self._reader.close()
        await asyncio.to_thread(self._database.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def append(self, messages: Sequence[Message]) -> None:
        """Return when all of them are durable; they become so together. Raises BrokerFull, BrokerDown.

        BrokerFull, and a timeout before the transaction began: nothing was kept. Once begun, its outcome is awaited, however
        long the disk takes. After a failed transaction (disk full, I/O error) nothing was kept, unless the process dies
        before the next one: then what the file system had taken may be found and kept at the next start.
        A caller that is cancelled leaves either all of its messages or none.
        Dead letters are not refused for want of room: they are moved here from messages that `bytes_max` counted already.
        """
        if messages:
            await self._submit(_Append(messages), sum(len(message.payload) for message in messages))

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        deadline = self._loop.time() + wait_s
        while True:
            self._appended.clear()
            if self._closing:
                raise BrokerDown(f"cannot read {self._file}: it is closed")
            for _ in range(len(self._turns)):
                topic = self._turns[0]
                self._turns.rotate(-1)
                head = self._heads.get(topic)
                if head is not None and head.end > head.committed:
                    return await self._loop.run_in_executor(self._read_thread, self._reader.read, topic, head, bytes_max)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._appended.wait()
            except TimeoutError:
                return None

    async def intend(self, messages: Range) -> None:
        await self._submit(_Intend(messages), 0)

    async def commit(self, messages: Range) -> None:
        """As the contract has it; the messages are deleted. A range that was committed before is left as it is."""
        await self._submit(_Commit(messages), 0)

    async def positions(self) -> dict[Partition, Position]:
        heads = {topic: self._heads.get(topic, _NO_HEAD) for topic in self._turns}
        return {Partition(topic, 0): Position(head.committed, head.end) for topic, head in heads.items()}

    async def lag(self) -> dict[Partition, int]:
        return {Partition(topic, 0): self.depth(topic) for topic in self._turns}

    async def ping(self) -> None:
        """Raises BrokerDown where the log can't be written: after a failure, by trying. Costs nothing while all is well."""
        if self._closing:
            raise BrokerDown(f"cannot write {self._file}: it is closed")
        if self.failure is not None:
            await self._submit(_Probe(), 0)

    async def _submit(self, work: _Work, size: int) -> None:
        limits = self._limits
        request = _Request(work, size, self._loop.create_future())
        with self._changed:
            if self._closing:
                raise BrokerDown(f"cannot write {self._file}: it is closed")
            if self._waiting_bytes and self._waiting_bytes + size > limits.waiting_bytes_max:
                raise BrokerDown(
                    f"cannot append {size} bytes to {self._file}: {self._waiting_bytes} of {limits.waiting_bytes_max} bytes"
                    " wait for the disk already"
                )
            self._waiting.append(request)
            self._waiting_bytes += size
            self._changed.notify()
        timer = self._loop.call_later(limits.append_timeout_s, self._expire, request)
        try:
            await request.done
        finally:
            timer.cancel()
            self._withdraw(request)

    def _expire(self, request: _Request) -> None:
        if self._withdraw(request) and not request.done.done():
            waited = f"its transaction did not begin within {self._limits.append_timeout_s:g} s"
            request.done.set_exception(BrokerDown(f"cannot append {request.size} bytes to {self._file}: {waited}"))

    def _withdraw(self, request: _Request) -> bool:
        """Whether it could still be taken back."""
        with self._changed:
            if request.taken or request.work is None:
                return False
            request.work = None
            self._waiting_bytes -= request.size
            return True

    @property
    def bytes_used(self) -> int:
        """How much of `bytes_max` is taken, counted shortly after each transaction."""
        return self._database.used_bytes

    def depth(self, topic: str) -> int:
        """Messages of any topic, polled or not, that are not yet committed."""
        head = self._heads.get(topic, _NO_HEAD)
        return head.end - head.committed

    def _settle(
        self,
        batch: list[_Request],
        failure: str | None,
        errors: list[BrokerError | None],
        heads: dict[str, _Head],
    ) -> None:
        """In the event loop: make a transaction known."""
        self._note(failure)
        self._heads = heads
        for request, error in zip(batch, errors, strict=True):
            if request.done.done():  # its caller was cancelled
                continue
            if error is None:
                request.done.set_result(None)
            else:
                request.done.set_exception(error)
        self._appended.set()

    def _note(self, failure: str | None) -> None:
        """One line when the log fails, one when it works again."""
        if failure is not None and self.failure is None:
            self._logger.error("local log cannot be written", file=str(self._file), error=failure)
        elif failure is None and self.failure is not None:
            self._logger.info("local log can be written again", file=str(self._file))
        self.failure = failure

    def _run(self) -> None:
        """The writer thread."""
        while batch := self._take():
            failure, errors = self._transact([request.work for request in batch if request.work is not None])
            try:
                self._loop.call_soon_threadsafe(self._settle, batch, failure, errors, self._database.heads)
            except RuntimeError:  # the loop was closed without closing the log: nobody is left to hear
                return
            try:
                self._database.tidy(lambda: not self._waiting and not self._closing)
            except sqlite3.Error as error:
                self._logger.warning("local log cannot give back space now", file=str(self._file), error=str(error))

    def _take(self) -> list[_Request]:
        """The next transaction's requests, at least one; none: closed, and all is done."""
        batch: list[_Request] = []
        size = 0
        with self._changed:
            while not batch:
                while not self._waiting:
                    if self._closing:
                        return batch
                    self._changed.wait()
                while self._waiting and (not batch or size + self._waiting[0].size <= self._limits.commit_bytes_max):
                    request = self._waiting.popleft()
                    if request.work is not None:
                        request.taken = True
                        size += request.size
                        batch.append(request)
            self._waiting_bytes -= size
        return batch

    def _transact(self, works: list[_Work]) -> tuple[str | None, list[BrokerError | None]]:
        try:
            return None, self._database.transact(works)
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller must hear of it and none may wait for ever
            failure = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
            return failure, [BrokerDown(f"cannot write {self._file}: {failure}") for _ in works]


def _open(file: Path, limits: LocalLogLimits) -> tuple["_Database", "_Reader"]:
    reading = threading.Lock()
    try:
        _make_directory(file.parent)
        database = _Database(file, limits, reading)
    except (OSError, sqlite3.Error) as error:
        raise LocalLogUnusable(f"cannot open the local log {file}: {error}") from error
    return database, _Reader(file, reading)


def _make_directory(directory: Path) -> None:
    """With its parents; each new entry survives a power cut."""
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        parent = os.open(directory.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


class _Plan:
    """One transaction before it is executed: what to execute, and where the partitions stand after it. Does no I/O."""

    def __init__(self, heads: Mapping[str, _Head], room_bytes: int) -> None:
        self.heads: Final = dict(heads)
        self._room_bytes = room_bytes
        self._statements: Final[list[_Statement]] = []
        self._arriving: Final[dict[str, list[bytes]]] = {}

    def add(self, work: _Work) -> BrokerError | None:
        """Take it in; or say why it can't be, and leave all as it was."""
        match work:
            case _Append(messages):
                return self._append(messages)
            case _Intend(range_):
                return self._intend(range_)
            case _Commit(range_):
                return self._commit(range_)
            case _Probe():
                self._statements.append((f"PRAGMA user_version = {_VERSION}", ()))
                return None
            case _:
                assert_never(work)

    def _append(self, messages: Sequence[Message]) -> BrokerError | None:
        need = sum(len(message.payload) + _MESSAGE_OVERHEAD_BYTES for message in messages)
        if need > self._room_bytes and any(message.topic != DEAD_LETTERS_TOPIC for message in messages):
            return BrokerFull(f"cannot append {need} bytes: the log is full but for {max(self._room_bytes, 0)}")
        self._room_bytes -= need
        for message in messages:
            self._arriving.setdefault(message.topic, []).append(message.payload)
        return None

    def _intend(self, range_: Range) -> BrokerError | None:
        topic, end = range_.partition.topic, range_.end
        head = self.heads.get(topic)
        if head is None or range_.start != head.committed or end > head.end or head.intent not in (None, end):
            return BrokerDown(f"cannot intend {_text(range_)}: the partition stands at {head}")
        self.heads[topic] = head._replace(intent=end)
        self._statements.append(("UPDATE partitions SET intent = ? WHERE id = ?", (end, head.id)))
        return None

    def _commit(self, range_: Range) -> BrokerError | None:
        topic, end = range_.partition.topic, range_.end
        head = self.heads.get(topic)
        if head is not None and end <= head.committed:
            return None
        if head is None or range_.start != head.committed or end != head.intent:
            return BrokerDown(f"cannot commit {_text(range_)}: the partition stands at {head}")
        self.heads[topic] = head._replace(committed=end, intent=None)
        self._statements.append(("UPDATE partitions SET committed = ?, intent = NULL WHERE id = ?", (end, head.id)))
        self._statements.append((_DELETE, (_key(head.id, 0), _key(head.id, end))))
        return None

    def statements(self) -> list[_Statement]:
        """In the order in which to execute them. Call once, last."""
        for topic, payloads in self._arriving.items():
            head = self.heads.get(topic)
            if head is None:
                head = _Head(1 + max((other.id for other in self.heads.values()), default=0), 0, 0, None)
                self._statements.append(("INSERT INTO partitions (id, topic, committed) VALUES (?, ?, 0)", (head.id, topic)))
            end = head.end
            for chunk in _chunks(payloads):
                payload = chunk[0] if len(chunk) == 1 else b"".join(chunk)
                self._statements.append((_INSERT, (_key(head.id, end), _pack_lengths(chunk), payload)))
                end += len(chunk)
            self.heads[topic] = head._replace(end=end)
        return self._statements


class _Database:
    """The connection that writes. One thread at a time."""

    def __init__(self, file: Path, limits: LocalLogLimits, reading: threading.Lock) -> None:
        self.file: Final = file
        self.heads: dict[str, _Head] = {}
        self.used_bytes = 0
        self._free_bytes = 0
        self._limits: Final = limits
        self._reading: Final = reading
        self._wal: Final = file.with_name(f"{file.name}-wal")
        # check_same_thread: opened in one thread, used in another, closed in a third, one after the other.
        self._connection: Final = sqlite3.connect(file, _LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        if self._pragma("page_count") == 0:
            execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        elif self._pragma("application_id") != _APPLICATION_ID:
            raise sqlite3.DatabaseError("it is a database of something else")
        elif self._pragma("user_version") != _VERSION:
            raise sqlite3.DatabaseError(f"its version is {self._pragma('user_version')}, and this program reads {_VERSION}")
        if (mode := execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
            raise sqlite3.DatabaseError(f"the file system allows no write-ahead log, only journal mode {mode}")
        execute("PRAGMA synchronous = FULL")
        # On by default in Debian's build: would write zeros over every page that is given back.
        execute("PRAGMA secure_delete = OFF")
        execute(f"PRAGMA wal_autocheckpoint = {max(1, self._limits.wal_bytes_max // _PAGE_BYTES)}")
        execute(f"PRAGMA journal_size_limit = {self._limits.wal_bytes_max}")
        if self._pragma("application_id") == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} COMMIT")
        # What a crash left in the write-ahead log may be in the page cache only; from here on it is on disk.
        self._truncate_wal()
        for id_, topic, committed, intent in execute("SELECT id, topic, committed, intent FROM partitions").fetchall():
            self.heads[topic] = _Head(id_, committed, max(committed, self._end(id_)), intent)
        self._measure()

    def _end(self, id_: int) -> int:
        last = self._connection.execute(
            "SELECT key, lengths FROM chunks WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
            (_key(id_, 0), _key(id_, _OFFSET_MASK)),
        ).fetchone()
        return 0 if last is None else (last[0] & _OFFSET_MASK) + _count(last[1])

    def transact(self, works: Sequence[_Work]) -> list[BrokerError | None]:
        """All of it in one durable transaction; why each was refused, or None. Raises sqlite3.Error: nothing was done."""
        plan = _Plan(self.heads, self._limits.bytes_max - self.used_bytes)
        refusals = [plan.add(work) for work in works]
        self._execute(plan.statements())
        self.heads = plan.heads
        return refusals

    def _execute(self, statements: Sequence[_Statement]) -> None:
        connection = self._connection
        if len(statements) == 1:  # a transaction by itself, and only one trip through the interpreter lock
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

    def tidy(self, idle: Callable[[], bool]) -> None:
        """Give space back, a step at a time unless idle, and bound the write-ahead log. Raises sqlite3.Error: later, then."""
        limits = self._limits
        self._measure()
        while self._free_bytes > max(limits.spare_bytes_max, self.used_bytes):
            # Not `execute`: it would step once, and so free one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_STEP_PAGES})")
            self._measure()
            if self._free_bytes <= max(limits.spare_bytes_max, self.used_bytes):
                self._truncate_wal()  # only a checkpoint makes the file itself shorter
            if not idle():
                break
        if self._wal.stat().st_size > 4 * limits.wal_bytes_max:
            self._truncate_wal()

    def _truncate_wal(self) -> None:
        # While a reader holds on to it, the write-ahead log can't start anew.
        with self._reading:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _measure(self) -> None:
        pages, free = self._connection.execute("SELECT * FROM pragma_page_count, pragma_freelist_count").fetchone()
        self.used_bytes = max(0, pages - free - _EMPTY_PAGES) * _PAGE_BYTES
        self._free_bytes = free * _PAGE_BYTES

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        self._connection.close()


class _Reader:
    """The connection that reads, and never writes or checkpoints. One thread at a time."""

    def __init__(self, file: Path, reading: threading.Lock) -> None:
        self._file: Final = file
        self._reading: Final = reading
        self._connection: Final = sqlite3.connect(file, _LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")

    def read(self, topic: str, head: _Head, bytes_max: int) -> Range:
        """From what is committed on, exactly up to the intent where one stands. Raises BrokerDown."""
        in_doubt = head.intent is not None
        end = head.end if head.intent is None else head.intent
        try:
            with self._reading:
                payloads = self._payloads(head, end, None if in_doubt else bytes_max)
        except (sqlite3.Error, ValueError) as error:
            raise BrokerDown(f"cannot read {topic} from offset {head.committed} in {self._file}: {error}") from error
        return Range(Partition(topic, 0), head.committed, head.committed + len(payloads), payloads, in_doubt)

    def _payloads(self, head: _Head, end: int, bytes_max: int | None) -> list[bytes]:
        payloads: list[bytes] = []
        size = 0
        # `closing`: an open cursor would keep its snapshot, and the write-ahead log from starting anew.
        keys = (_key(head.id, 0), _key(head.id, head.committed), _key(head.id, end))
        with closing(self._connection.execute(_SELECT, keys)) as rows:
            for key, lengths, chunk in rows:
                offset = key & _OFFSET_MASK
                for payload in _split(lengths, chunk):
                    if head.committed <= offset < end:
                        if payloads and bytes_max is not None and size + len(payload) > bytes_max:
                            return payloads
                        if offset != head.committed + len(payloads):
                            raise ValueError(f"offset {head.committed + len(payloads)} is missing, {offset} is next")
                        payloads.append(payload)
                        size += len(payload)
                    offset += 1
        if head.committed + len(payloads) != end:
            raise ValueError(f"the messages end at {head.committed + len(payloads)}, not at {end}")
        return payloads

    def close(self) -> None:
        self._connection.close()


def _key(id_: int, offset: int) -> int:
    return id_ << _OFFSET_BITS | offset


def _chunks(payloads: list[bytes]) -> Iterator[list[bytes]]:
    """Consecutive payloads, cut so that none exceeds _CHUNK_BYTES unless it is a single one."""
    chunk: list[bytes] = []
    size = 0
    for payload in payloads:
        if chunk and size + len(payload) > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(payload)
        size += len(payload)
    yield chunk


def _pack_lengths(payloads: list[bytes]) -> bytes:
    """Four bytes each, little-endian."""
    return b"".join(len(payload).to_bytes(4, "little") for payload in payloads)


def _count(lengths: bytes) -> int:
    return len(lengths) // 4


def _split(lengths: bytes, chunk: bytes) -> list[bytes]:
    """The payloads of a chunk. Raises ValueError where the lengths do not add up to it."""
    sizes = [int.from_bytes(lengths[at : at + 4], "little") for at in range(0, len(lengths), 4)]
    if sum(sizes) != len(chunk):
        raise ValueError(f"a chunk of {len(chunk)} bytes should have {sum(sizes)}")
    return [chunk] if len(sizes) == 1 else [chunk[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def _text(range_: Range) -> str:
    return f"{range_.partition.topic}/{range_.partition.index} {range_.start} to {range_.end}"
