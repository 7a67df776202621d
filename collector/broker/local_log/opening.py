"""Open the database at a start. Make another if it can't be used, or restore it if it lacks acknowledged messages.

Invariants:
1. Another log in the place of the former one is a log of its own; the messages that the former one still held are reported
   (test_another_log_in_its_place_is_a_log_of_its_own, test_logs_of_two_copies_that_are_exchanged_lose_nothing).
"""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from collector.broker.local_log.carve import carve_heads
from collector.broker.local_log.database import Database, FileDamaged
from collector.broker.local_log.durable_files import copy_in_place, link, size_of
from collector.broker.local_log.incidents import Incidents
from collector.broker.local_log.limits import LocalLogLimits, LocalLogUnusable
from collector.broker.local_log.lineage import Branch, branch_of
from collector.broker.local_log.losses import LossReports
from collector.broker.local_log.positions import heads_of, is_behind, merged
from collector.broker.local_log.recovery import restore
from collector.broker.local_log.witness import Witnessed, sync_directory

# At the start the structure of a file up to this size is checked: half a second. A larger one is checked when it is read.
_CHECK_BYTES_MAX: Final = 256 * 1024 * 1024


class LogOpening:
    """Opens the database of one log. One thread at a time. Every method raises OSError, sqlite3.Error."""

    def __init__(
        self, file: Path, limits: LocalLogLimits, reading: threading.Lock, incidents: Incidents, losses: LossReports
    ) -> None:
        self._file: Final = file
        self._limits: Final = limits
        self._reading: Final = reading
        self._incidents: Final = incidents
        self._losses: Final = losses
        self._logger: Final = structlog.get_logger(__name__)
        self._wal: Final = file.with_name(f"{file.name}-wal")
        # The write-ahead log as it was at the start: SQLite removes it when it closes, and cuts off what it could not read.
        self._wal_before: Final = file.with_name(f"{file.name}-wal-before")
        self._new: Final = file.with_name(f"{file.name}-new")
        self._had_wal = False

    def take_write_ahead_log(self) -> None:
        """Keep the present write-ahead log before SQLite opens it."""
        if not self._file.exists() and self._new.exists():  # the process died before it renamed the rebuilt file
            self._new.rename(self._file)
        self._had_wal = self._wal.exists()
        if size_of(self._wal) and not self._wal_before.exists():
            link(self._wal, self._wal_before)

    def is_done(self) -> None:
        """Remove the kept write-ahead log, which is no longer needed."""
        self._wal_before.unlink(missing_ok=True)

    def with_witness(self, witnessed: Witnessed) -> tuple[Database, Branch | None]:
        """Return the database with all acknowledged messages that are found. Also return a branch, if the database is another
        branch than the witness's log."""
        if not size_of(self._file) and any(head.end for head in witnessed.heads.values()):
            return self.rebuilt("its file is missing", witnessed), None
        try:
            database = self._opened()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return self.rebuilt(str(error), witnessed), None
        return database, self._compared(database, witnessed)

    def _compared(self, database: Database, witnessed: Witnessed) -> Branch | None:
        """Compare the database with the witness. If it is another log, or has not come as far, report or restore messages."""
        self._losses.found_again(database)
        if witnessed.identities and not set(witnessed.identities) & set(database.identities):
            self._losses.report_other_log(witnessed, self._file, database.identity)
            return None
        branch = branch_of(database.lineage, witnessed.lineage, database.heads, witnessed.heads)
        if branch is not None:
            before = database.heads
            database.branch_off(branch.stored, lambda: self._losses.report_other_branch(witnessed, branch, before, self._file))
            return branch
        if witnessed.is_final:
            database.withdraw(witnessed.heads)
        if is_behind(database.heads, witnessed.heads):
            self._recover(database, witnessed)
        return None

    def _opened(self) -> Database:
        database = Database(self._file, self._limits, self._reading)
        try:
            if size_of(self._file) <= _CHECK_BYTES_MAX:
                database.check()
        except BaseException:
            database.close()
            raise
        return database

    def witness_is_lost(self, file: Path) -> None:
        """Keep the rest of the damaged witness, and report it: the witness in the store is used."""
        if file.exists() and any(file.read_bytes()):
            self._incidents.take(file)
        self._losses.report_witness_in_store(file)

    def without_witness(self, witness_file: Path) -> Database:
        """Return the database. In place of the witness, use the partitions' own rows, wherever they are found."""
        # A file of zeros is no witness: a start was killed before its first write.
        had_witness = witness_file.exists() and any(witness_file.read_bytes())
        database = self._opened_without_witness()
        if had_witness:
            self._incidents.take(witness_file)
        if had_witness or database.had_witness:
            self._losses.report_no_witness(witness_file)
        if database.was_open and not self._had_wal:
            self._losses.report_no_wal(self._wal)
        return database

    def _opened_without_witness(self) -> Database:
        if had_file := size_of(self._file) > 0:
            try:
                return self._opened()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                reason = str(error)
        else:
            reason = "its file is missing"
        heads = carve_heads(self._file, [self._wal_before, self._wal])
        if heads:
            return self.rebuilt(reason, Witnessed((), heads))
        if had_file:
            raise LocalLogUnusable(
                f"cannot open the local log {self._file}: {reason}; its contents are unknown: move {self._file.parent} away to"
                " begin a new log, and keep it"
            )
        return self._opened()

    def rebuilt(self, reason: str, witnessed: Witnessed) -> Database:
        """Make another file from the messages that are found in the old ones, and move these aside. `witnessed` is how far the
        log had come."""
        old = [file for file in (self._file, self._wal_before, self._wal) if file.exists()]
        kept = str(self._incidents.folder()) if old else "nothing was left"
        self._logger.error("the local log is damaged, and rebuilt from its readable messages", reason=reason, kept=kept)
        known = merged(heads_of(self._file), witnessed.heads)
        for suffix in ("", "-wal", "-shm"):
            self._new.with_name(self._new.name + suffix).unlink(missing_ok=True)
        with closing(Database(self._new, self._limits, self._reading)) as database:
            restore(
                database,
                self._losses,
                self._file,
                [self._wal_before, self._wal],
                known,
                f"the file was damaged: {reason}",
                witnessed.identities,
                is_final=witnessed.is_final,
            )
            database.inherit(witnessed.lineage)
            database.settle()
        for file in old:
            self._incidents.take(file)
        self._file.with_name(f"{self._file.name}-shm").unlink(missing_ok=True)
        self._new.rename(self._file)
        sync_directory(self._file.parent)
        return Database(self._file, self._limits, self._reading)

    def _recover(self, database: Database, witnessed: Witnessed) -> None:
        """Restore acknowledged messages that the file lacks.

        Its write-ahead log was cut, damaged or removed, or the file is an older copy.

        SQLite writes the restored chunks over the frames that it could not read, so these are copied first.
        """
        reason = "the file was behind what had been acknowledged"
        self._logger.error("the local log lacks acknowledged messages; what its write-ahead log still holds is restored")
        if self._wal_before.exists():
            copy_in_place(self._wal_before)
        known = merged(database.heads, witnessed.heads)
        restore(database, self._losses, None, [self._wal_before], known, reason, is_final=witnessed.is_final)
        if self._wal_before.exists():
            self._incidents.take(self._wal_before)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return whether the error means that the file is damaged, and not only unusable now."""
    if isinstance(error, FileDamaged) or "Could not decode to UTF-8" in str(error):  # raised by Python's module
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
