"""The connection that writes and checkpoints: the only one that ever does."""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from collector.broker.contract import BrokerError
from collector.broker.local_log import schema
from collector.broker.local_log.chunks import OFFSET_MASK, chunk_key, count
from collector.broker.local_log.limits import LocalLogLimits
from collector.broker.local_log.plan import Head, Plan, Statement, Work

# A file without messages: its header and schema, one pointer map, the three tables and the index.
_EMPTY_PAGES: Final = 6
_VACUUM_STEP_PAGES: Final = 4 * 1024 * 1024 // schema.PAGE_BYTES


class Database:
    """The connection that writes. One thread at a time."""

    def __init__(self, file: Path, limits: LocalLogLimits, reading: threading.Lock) -> None:
        self.file: Final = file
        self.heads: dict[str, Head] = {}
        self.identity = ""
        self.is_new = False
        self.used_bytes = 0
        self._free_bytes = 0
        self._limits: Final = limits
        self._reading: Final = reading
        self._wal: Final = file.with_name(f"{file.name}-wal")
        # check_same_thread: opened in one thread, used in another, closed in a third, one after the other.
        self._connection: Final = sqlite3.connect(file, schema.LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        if self._pragma("page_count") == 0:
            self.is_new = True
            execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        elif self._pragma("application_id") != schema.APPLICATION_ID:
            raise sqlite3.DatabaseError("it is a database of something else")
        elif self._pragma("user_version") != schema.VERSION:
            raise sqlite3.DatabaseError(
                f"its version is {self._pragma('user_version')}, and this program reads {schema.VERSION}"
            )
        if (mode := execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
            raise sqlite3.DatabaseError(f"the file system allows no write-ahead log, only journal mode {mode}")
        execute("PRAGMA synchronous = FULL")
        # On by default in Debian's build: would write zeros over every page that is given back.
        execute("PRAGMA secure_delete = OFF")
        execute(f"PRAGMA wal_autocheckpoint = {max(1, self._limits.wal_bytes_max // schema.PAGE_BYTES)}")
        execute(f"PRAGMA journal_size_limit = {self._limits.wal_bytes_max}")
        if self._pragma("application_id") == 0:
            self._connection.executescript(f"BEGIN; {schema.SCHEMA} COMMIT")
        self.identity = self._identity()
        # What a crash left in the write-ahead log may be in the page cache only; from here on it is on disk.
        self._truncate_wal()
        for id_, topic, committed, intent, log, depth in execute(schema.HEADS).fetchall():
            self.heads[topic] = Head(id_, committed, max(committed, self._end(id_)), intent, log or "", depth or 0)
        self._measure()

    def _identity(self) -> str:
        """The file's, made now where it has none."""
        execute = self._connection.execute
        if not execute(schema.HAS_IDENTITY).fetchone()[0]:
            self._connection.executescript(f"BEGIN; {schema.IDENTITY} COMMIT")
        return str(execute("SELECT id FROM identity").fetchone()[0])

    def _end(self, id_: int) -> int:
        last = self._connection.execute(
            "SELECT key, lengths FROM chunks WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
            (chunk_key(id_, 0), chunk_key(id_, OFFSET_MASK)),
        ).fetchone()
        return 0 if last is None else (last[0] & OFFSET_MASK) + count(last[1])

    def transact(self, works: Sequence[Work]) -> list[BrokerError | None]:
        """All of it in one durable transaction; why each was refused, or None. Raises sqlite3.Error: nothing was done."""
        plan = Plan(self.heads, self._limits.bytes_max - self.used_bytes)
        refusals = [plan.add(work) for work in works]
        self._execute(plan.statements())
        self.heads = plan.heads
        return refusals

    def _execute(self, statements: Sequence[Statement]) -> None:
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
        self.used_bytes = max(0, pages - free - _EMPTY_PAGES) * schema.PAGE_BYTES
        self._free_bytes = free * schema.PAGE_BYTES

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        self._connection.close()


def make_directory(directory: Path) -> None:
    """With its parents; each new entry survives a power cut."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        parent = os.open(directory.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
