"""The local durable log: the broker of the embedded form, in one SQLite file.

An append returns after the fsync of the one transaction that holds all of its messages. Only one thread with one connection
writes and checkpoints: SQLite before 3.51.3 can corrupt a WAL database if two connections write or checkpoint at the same
moment (sqlite.org/wal.html, "the WAL-reset bug").

Group commit: all requests that wait when the thread is free share its next transaction. Messages of one topic that commit
together share a row, a *chunk*, as record batches do in Kafka: each row costs a trip through Python's interpreter lock.
docs/adr/0004-local-log.md has the reasons and the measurements.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from collector.broker.contract import BrokerDown, BrokerError, BrokerFull, Message, Partition, Position, Range
from collector.broker.local_log.files import LogFiles
from collector.broker.local_log.limits import LocalLogLimits
from collector.broker.local_log.lineage import Epoch
from collector.broker.local_log.plan import NO_HEAD, Commit, Intend, LogAppend, PartitionHead, Probe, Work
from collector.broker.local_log.witness_keeper import WITNESS_SYNC_S
from collector.runtime.disk import Disk
from collector.runtime.reminders import Reminder


class LogRequest:
    """Work that waits for the writer thread. `work` is None once it was withdrawn."""

    __slots__ = ("done", "size", "taken", "work")

    def __init__(self, work: Work, size: int, done: "asyncio.Future[None]") -> None:
        self.work: Work | None = work
        self.size: Final = size
        self.done: Final = done
        self.taken = False


class LocalLog:
    """Producer and Consumer (collector.broker.contract) over one file. Belongs to the event loop that opened it."""

    def __init__(self, files: LogFiles, limits: LocalLogLimits, topics: Sequence[str]) -> None:
        """Use `open`."""
        self.failure: str | None = None
        """Why the last transaction failed; None if it did not."""
        self.unproven: str | None = None  # always None: `ping` writes after a failure
        self.is_new: Final = files.is_new
        """Whether the file was made just now, and no earlier file is known."""
        self.identity: Final = files.identity
        """The file's identity."""
        self._file: Final = files.file
        self._limits: Final = limits
        self._loop: Final = asyncio.get_running_loop()
        self._logger: Final = structlog.get_logger(__name__)
        self._heads = files.heads
        self._turns: Final = deque(topics)  # round-robin: the next to be read is first
        self._appended: Final = asyncio.Event()
        self._waiting: Final[deque[LogRequest]] = deque()
        self._waiting_bytes = 0
        self._untidy: Final = Reminder()
        self._closing = False
        self._changed: Final = threading.Condition()  # guards `_waiting`, `_waiting_bytes` and `_closing`
        self._files: Final = files
        self._read_thread: Final = ThreadPoolExecutor(1, "local-log-read")
        self._write_thread: Final = threading.Thread(target=self._run, name="local-log-write", daemon=True)
        self._write_thread.start()

    @classmethod
    async def open(cls, directory: Path, limits: LocalLogLimits, topics: Collection[str], *, store: Path | None = None) -> Self:
        """Open or create the file in `directory`. `poll` reads `topics`. `store` is the directory of the embedded store, where
        the log also notes how far it has come. Raises LocalLogUnusable."""
        files = await asyncio.to_thread(LogFiles.open, directory, limits, store)
        return cls(files, limits, tuple(topics))

    async def close(self) -> None:
        """Finish the requests that wait, refuse new ones (BrokerDown), and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._appended.set()
        await asyncio.to_thread(self._write_thread.join)
        await asyncio.to_thread(self._read_thread.shutdown)
        await asyncio.to_thread(self._files.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def append(self, messages: Sequence[Message]) -> None:
        """Return when all of them are durable; they become so together. Raises BrokerFull, BrokerDown.

        After BrokerFull, or a timeout before the transaction began, no message was kept. Once begun, its outcome is awaited,
        however long the disk takes. After a failed transaction (disk full, I/O error) no message was kept, unless the process
        dies before the next one: then messages that the file system had taken may be found and kept at the next start.
        If the caller is cancelled, either all of its messages are kept or none.
        Dead letters are not refused for want of room: they are moved here from messages that `bytes_max` counted already.
        """
        if messages:
            await self._submit(LogAppend(messages), sum(len(message.payload) for message in messages))

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
                    read = await self._loop.run_in_executor(self._read_thread, self._files.read, topic, head, bytes_max)
                    if isinstance(read, Range):
                        return read
                    if read is not None:
                        await self._submit(read, 0)
                    self._appended.set()  # more messages may follow
                    break
            try:
                async with asyncio.timeout_at(deadline):
                    await self._appended.wait()
            except TimeoutError:
                return None

    async def intend(self, messages: Range) -> None:
        await self._submit(Intend(messages), 0)

    async def commit(self, messages: Range) -> None:
        """Commit, as the contract says, and delete the messages. Do nothing for a range that was committed before."""
        await self._submit(Commit(messages), 0)

    async def positions(self) -> dict[Partition, Position]:
        heads = {topic: self._heads.get(topic, NO_HEAD) for topic in self._turns}
        return {Partition(topic, 0): Position(head.committed, head.end) for topic, head in heads.items()}

    async def progress(self) -> dict[Partition, Position]:
        return await self.positions()

    async def lag(self) -> dict[Partition, int]:
        return {Partition(topic, 0): self.depth(topic) for topic in self._turns}

    async def ping(self) -> None:
        """Check that the log can be written: by a write, after a failure or if a file has changed. Raises BrokerDown."""
        if self._closing:
            raise BrokerDown(f"cannot write {self._file}: it is closed")
        if self.failure is not None or await asyncio.to_thread(self._has_changed):
            await self._submit(Probe(), 0)

    def _has_changed(self) -> bool:
        """Return whether somebody else has changed a file. The next write then fails, or makes the file again."""
        return self._files.check() is not None or not self._files.is_witness_whole

    @property
    def has_lost_files(self) -> bool:
        """Return whether the log's files were removed, replaced or cut since they were opened."""
        return self._files.gone is not None

    @property
    def is_cut(self) -> bool:
        """Return whether the log's files were cut since they were opened."""
        return self._files.is_cut

    @property
    def starts(self) -> tuple[Epoch, ...]:
        """Return the last starts, and the partitions' positions at each; this start is last."""
        return self._files.lineage

    async def witness_in_store(self) -> None:
        """Note how far the log has come in the store's directory too, which exists now."""
        await asyncio.to_thread(self._files.witness_in_store)

    async def copy_to(self, directory: Path) -> None:
        """Write a snapshot of the log into `directory`, and its witness next to that; appends go on meanwhile. Raises
        BrokerDown."""
        try:
            await asyncio.to_thread(self._files.copy_to, directory)
        except (OSError, sqlite3.Error) as error:
            raise BrokerDown(f"cannot copy {self._file} to {directory}: {error}") from error

    async def _submit(self, work: Work, size: int) -> None:
        limits = self._limits
        request = LogRequest(work, size, self._loop.create_future())
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

    def _expire(self, request: LogRequest) -> None:
        if self._withdraw(request) and not request.done.done():
            waited = f"its transaction did not begin within {self._limits.append_timeout_s:g} s"
            request.done.set_exception(BrokerDown(f"cannot append {request.size} bytes to {self._file}: {waited}"))

    def _withdraw(self, request: LogRequest) -> bool:
        """Withdraw a request that no transaction has taken. Return whether that succeeded."""
        with self._changed:
            if request.taken or request.work is None:
                return False
            request.work = None
            self._waiting_bytes -= request.size
            return True

    @property
    def bytes_used(self) -> int:
        """Return how many of `bytes_max` are used, measured shortly after each transaction."""
        return self._files.used_bytes

    @property
    def bytes_max(self) -> int:
        """Return how many bytes the log may use (local_log.bytes_max)."""
        return self._limits.bytes_max

    @property
    def is_full(self) -> bool:
        return self.bytes_used >= self._limits.bytes_max

    @property
    def disk(self) -> Disk:
        """Return the file system that the log is in."""
        return self._files.disk

    def damages(self) -> tuple[int, int]:
        """Return the number of incidents that no operator has confirmed, and how many acknowledged messages they lost. Reads
        files. Raises OSError."""
        incidents = self._files.incidents.unconfirmed()
        return len(incidents), sum(incident.messages for incident in incidents)

    def lacking_in_store(self, lacking: Mapping[str, tuple[int, int]]) -> int:
        """Report, durably, messages that were committed and are not in the embedded store. Return how many are newly reported.
        Raises OSError."""
        return self._files.losses.report_lacking(self.identity, lacking)

    def stored_beside(self, has: Callable[[str, int, int], Sequence[tuple[int, int]]]) -> None:
        """Withdraw those reports as far as the present store has the messages. Raises OSError."""
        self._files.losses.stored_again(self.identity, has)

    def depth(self, topic: str) -> int:
        """Return the number of a topic's messages, polled or not, that are not yet committed."""
        head = self._heads.get(topic, NO_HEAD)
        return head.end - head.committed

    def _settle(
        self,
        batch: list[LogRequest],
        failure: str | None,
        errors: list[BrokerError | None],
        heads: dict[str, PartitionHead],
    ) -> None:
        """Answer the requests of a transaction, in the event loop."""
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
        """Log one line when the log fails, and one when it works again."""
        if failure is not None and self.failure is None:
            self._logger.error("local log cannot be written", file=str(self._file), error=failure)
        elif failure is None and self.failure is not None:
            self._logger.info("local log can be written again", file=str(self._file))
        self.failure = failure

    def _run(self) -> None:
        """Run transactions until the log is closed. This is the writer thread."""
        while batch := self._take():
            failure, errors = self._transact([request.work for request in batch if request.work is not None])
            try:
                self._loop.call_soon_threadsafe(self._settle, batch, failure, errors, self._files.heads)
            except RuntimeError:  # the loop was closed without closing the log: no caller is left
                return
            try:
                self._files.tidy(lambda: not self._waiting and not self._closing)
                self._untidy.over()
            except (OSError, sqlite3.Error) as error:
                if self._untidy.due():
                    self._logger.warning("local log cannot give back space now", file=str(self._file), error=str(error))

    def _take(self) -> list[LogRequest]:
        """Return the next transaction's requests, at least one; none if the log is closed and all is done."""
        batch: list[LogRequest] = []
        size = 0
        with self._changed:
            while not batch:
                while not self._waiting:
                    if self._closing:
                        return batch
                    self._wait()
                while self._waiting and (not batch or size + self._waiting[0].size <= self._limits.commit_bytes_max):
                    request = self._waiting.popleft()
                    if request.work is not None:
                        request.taken = True
                        size += request.size
                        batch.append(request)
            self._waiting_bytes -= size
        return batch

    def _wait(self) -> None:
        """Wait until a request comes or the log is closed. Sync the witness meanwhile."""
        if self._changed.wait(None if self._files.is_witness_synced else WITNESS_SYNC_S):
            return
        self._changed.release()
        try:
            self._files.sync_witness()
        finally:
            self._changed.acquire()

    def _transact(self, works: list[Work]) -> tuple[str | None, list[BrokerError | None]]:
        try:
            refusals = self._files.transact(works)
            return self._files.gone, refusals
        except Exception as error:  # noqa: BLE001 - every caller must get every error, and none may wait for ever
            failure = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
            return failure, _refusals(works, self._files, failure, error)


def _refusals(works: Sequence[Work], files: LogFiles, failure: str, error: Exception) -> list[BrokerError | None]:
    """Return the errors of works whose transaction failed. Other data can fill the disk between two checks of its space: then
    an append fails as if the check had noticed it."""
    down = BrokerDown(f"cannot write {files.file}: {failure}")
    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
        return [down for _ in works]
    files.disk.check()
    full = BrokerFull(f"cannot write {files.file}: {files.disk.shortage or failure}")
    return [full if isinstance(work, LogAppend) else down for work in works]
