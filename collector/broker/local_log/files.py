"""The files of the log together: the database, the connection that reads, the witness, and what to do when they are damaged.

The witness says how far the log had come. Where the database is behind it at the start, acknowledged messages are gone; where
SQLite can't use the database, or rows of it are missing, it is made anew from what its pages still hold. What is not found is
reported, and the log goes on behind it, with offsets that were never used.

Invariants:
1. Offsets never repeat while the witness or the database is there (test_offsets_go_on_after_a_loss).
2. What was committed is not polled again (test_an_old_copy_is_not_stored_again).
3. A damaged file is moved aside, never deleted (test_a_damaged_header_costs_nothing,
   test_a_flipped_byte_of_the_wal_costs_at_most_its_message).
4. Another log in the place of the own one is a log of its own; what the own one still held is reported
   (test_another_log_in_its_place_is_a_log_of_its_own).
5. Nothing is acknowledged once the files are no longer where or what they were; what they hold can still be read and committed
   (test_a_log_that_is_removed_takes_nothing, test_a_log_that_is_cut_takes_nothing).
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Self

import structlog

from collector.broker.contract import BrokerDown, BrokerError, Range
from collector.broker.local_log import schema
from collector.broker.local_log.carve import carve_heads
from collector.broker.local_log.database import Database, FileDamaged, make_directory, transact_in_place
from collector.broker.local_log.disk_looks import DiskLooks
from collector.broker.local_log.durable_files import copy_in_place, link, size_of
from collector.broker.local_log.incidents import Incidents
from collector.broker.local_log.limits import LocalLogLimits, LocalLogUnusable
from collector.broker.local_log.losses import LossReports
from collector.broker.local_log.open_files import OpenFiles
from collector.broker.local_log.plan import PartitionHead, Probe, Skip, Work
from collector.broker.local_log.positions import heads_of, is_behind, merged
from collector.broker.local_log.reader import Found, LogReader
from collector.broker.local_log.recovery import copy_log, restore
from collector.broker.local_log.witness import Witnessed, read_witness, sync_directory
from collector.broker.local_log.witness_keeper import WitnessKeeper
from collector.runtime.disk import Disk

# At the start the structure of a file up to this size is checked: half a second. A larger one is checked when it is read.
_CHECK_BYTES_MAX: Final = 256 * 1024 * 1024
# How long a structure that was found to be sound is trusted while more messages are missing.
_SOUND_S: Final = 60.0


class LogFiles:
    """One thread at a time writes: the methods take a lock. `read` is called by one other thread."""

    def __init__(self, directory: Path, limits: LocalLogLimits) -> None:
        """Use `open`."""
        self.file: Final = directory / schema.FILE_NAME
        self.disk: Final = Disk(directory.parent, limits.reserve_percent, limits.reserve_bytes_min, limits.reserve_bytes_max)
        self.incidents: Final = Incidents(directory.parent)
        self._losses: Final = LossReports(self.incidents)
        self._limits: Final = limits
        self._logger: Final = structlog.get_logger(__name__)
        self._wal: Final = self.file.with_name(f"{self.file.name}-wal")
        # The write-ahead log as it was at the start: SQLite removes it when it closes, and cuts off what it could not read.
        self._wal_before: Final = self.file.with_name(f"{self.file.name}-wal-before")
        self._witness_file: Final = directory.with_name(f"{directory.name}.acknowledged")
        self._busy: Final = threading.RLock()
        self._reading: Final = threading.Lock()
        self._new: Final = self.file.with_name(f"{self.file.name}-new")
        self._damage: str | None = None
        """Why the file must be made anew before it can be used; None: it can be used."""
        self._known = Witnessed((), {})
        self._sound_until = 0.0
        self._disk_looks: Final = DiskLooks(self.disk)
        self._copying: Final = threading.Lock()
        self.gone: str | None = None
        """Why nothing is taken: the files are no longer where or what they were. None: they are."""

    @classmethod
    def open(cls, directory: Path, limits: LocalLogLimits) -> Self:
        """Raises LocalLogUnusable."""
        files = cls(directory, limits)
        try:
            make_directory(directory)
            files._open()
        except (OSError, sqlite3.Error) as error:
            raise LocalLogUnusable(f"cannot open the local log {files.file}: {error}") from error
        return files

    def _open(self) -> None:
        witnessed = read_witness(self._witness_file)
        if not self.file.exists() and self._new.exists():  # made anew, and died before it had its name
            self._new.rename(self.file)
        had_witness, had_file, had_wal = self._witness_file.exists(), size_of(self.file) > 0, self._wal.exists()
        if size_of(self._wal) and not self._wal_before.exists():
            link(self._wal, self._wal_before)
        if witnessed is None:
            self._open_without_witness(had_file)
            self._report_no_witness(had_witness, had_wal)
        elif not had_file and any(head.end for head in witnessed.heads.values()):
            self._rebuild("its file is missing", witnessed)
        else:
            try:
                self._database = self._opened()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._rebuild(str(error), witnessed)
            else:
                self._compare(witnessed)
        self._begin_reading()
        self._wal_before.unlink(missing_ok=True)
        self._witness = WitnessKeeper(self._witness_file, lambda: self.look() is None)
        self._write_witness()
        self._witness.sync()

    def _compare(self, witnessed: Witnessed) -> None:
        """Do what is needed where the database is not that of the witness, or has not come as far."""
        if witnessed.identities and not set(witnessed.identities) & set(self._database.identities):
            self._losses.report_other_log(witnessed, self.file, self._database.identity)
            return
        if witnessed.is_final:
            self._database.withdraw(witnessed.heads)
        if is_behind(self._database.heads, witnessed.heads):
            self._recover(witnessed)

    def _begin_reading(self) -> None:
        self._database.settle()
        self._reader = LogReader(self.file, self._database.identity, self._reading)
        self._open_files = OpenFiles(self.file, self._wal)

    def _opened(self) -> Database:
        database = Database(self.file, self._limits, self._reading)
        try:
            if size_of(self.file) <= _CHECK_BYTES_MAX:
                database.check()
        except BaseException:
            database.close()
            raise
        return database

    def _open_without_witness(self, had_file: bool) -> None:
        """What the partitions' own rows say, wherever they are found, has to do in its place."""
        if had_file:
            try:
                self._database = self._opened()
                return
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                reason = str(error)
        else:
            reason = "its file is missing"
        heads = carve_heads(self.file, [self._wal_before, self._wal])
        if heads:
            self._rebuild(reason, Witnessed((), heads))
        elif had_file:
            raise LocalLogUnusable(
                f"cannot open the local log {self.file}: {reason}; nothing says what it held: move {self.file.parent} away to"
                " begin a new log, and keep it"
            )
        else:
            self._database = self._opened()

    def _report_no_witness(self, had_witness: bool, had_wal: bool) -> None:
        if had_witness:
            self.incidents.take(self._witness_file)
        if had_witness or self._database.had_witness:
            self._losses.report_no_witness(self._witness_file)
        if self._database.was_open and not had_wal:
            self._losses.report_no_wal(self._wal)

    # Called while there is no damage.

    @property
    def heads(self) -> dict[str, PartitionHead]:
        return self._database.heads

    @property
    def used_bytes(self) -> int:
        return self._database.used_bytes

    @property
    def identity(self) -> str:
        """The file's identity."""
        return self._database.identity

    @property
    def is_new(self) -> bool:
        """Return whether the file was made just now, and nothing is known of one before it."""
        return self._database.is_new

    def transact(self, works: Sequence[Work]) -> list[BrokerError | None]:
        """As Database.transact; a damaged file is made anew first. Raises sqlite3.Error, OSError: nothing was done."""
        with self._busy:
            if self._damage is not None:
                self._reopen(self._damage)
            if self.gone is not None or any(isinstance(work, Probe) for work in works):
                self.gone = self.look()
            self._disk_looks.look(works)
            try:
                refusals = self._transact(works)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._reopen(str(error))
                refusals = self._transact(works)
            self._write_witness()
            return refusals

    def _transact(self, works: Sequence[Work]) -> list[BrokerError | None]:
        look = self._open_files.fault_of_written
        refusals, self.gone = transact_in_place(self._database, works, self.disk.shortage, self.gone, look)
        return refusals

    def _write_witness(self) -> None:
        is_final = self.gone is not None
        self._witness.write(Witnessed(self._database.identities, self._database.heads, is_final=is_final))

    def look(self) -> str | None:
        """Return why the files are not where or what they were; None: they are. Called by any thread."""
        return self._open_files.fault()

    @property
    def is_witness_whole(self) -> bool:
        """Return whether the witness is at its path and was not cut. Called by any thread."""
        try:
            return self._witness.is_whole
        except OSError:
            return False

    @property
    def is_cut(self) -> bool:
        """Return whether they were cut: then only a restart helps."""
        return self._open_files.cut is not None

    def tidy(self, idle: Callable[[], bool]) -> None:
        """As Database.tidy; and sync the witness now and then. Raises sqlite3.Error, OSError."""
        with self._busy:
            self.sync_witness()
            # A copy holds the write-ahead log: to cut it off would wait for the copy, and appends with it.
            if self._damage is None and self.gone is None and not self._copying.locked():
                if self._open_files.frames_ahead >= max(1, self._limits.wal_bytes_max // schema.PAGE_BYTES):
                    self._database.checkpoint()
                    self._open_files.fault_of_written()
                if self._database.tidy(idle, is_disk_low=self.disk.is_low):
                    self._open_files.fault_of_written()

    @property
    def is_witness_synced(self) -> bool:
        return self._witness.is_synced

    def sync_witness(self) -> None:
        """Not more often than once a second."""
        with self._busy:
            self._witness.sync_now_and_then()

    def copy_to(self, directory: Path) -> None:
        """Write the log as it is at one moment into `directory`, with its witness beside it; appends go on meanwhile.
        Raises OSError, sqlite3.Error."""
        if (gone := self.look()) is not None:
            raise OSError(gone)
        with self._copying:
            copy_log(self.file, self._witness_file.name, self._limits, directory)

    def close(self) -> None:
        with self._busy:
            # The reader first: the last connection to close checkpoints, and that must be the one that writes.
            is_gone = self._open_files.fault_of_written() is not None
            self._reader.close(is_gone=is_gone)
            self._database.close(is_done=not is_gone)
            if not is_gone:
                self._open_files.close()
            with suppress(OSError):
                self._witness.sync()
            self._witness.close()

    # What is found while reading.

    def read(self, topic: str, head: PartitionHead, bytes_max: int) -> Range | Skip | None:
        """Return the range from `head` on; or, where messages in its place can't be read, what to skip: it is reported.
        None: the file was made anew, so ask again. Raises BrokerDown."""
        try:
            range_, found = self._reader.read(topic, head, bytes_max)
            if any(it.row is None for it in found) and self._is_made_anew():
                return None
            self._report(topic, head.id, found)
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                try:
                    self._reopen(str(error))
                except (OSError, sqlite3.Error) as another:
                    error = sqlite3.DatabaseError(f"{error}; it can't be made anew: {another}")
                else:
                    return None
            raise BrokerDown(f"cannot read {topic} from offset {head.committed} in {self.file}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            raise BrokerDown(f"cannot read {topic} from offset {head.committed} in {self.file}: {error}") from error
        if range_ is not None:
            self._losses.remember(range_)
            return range_
        return Skip(topic, found[0].start, found[-1].end)

    def _is_made_anew(self) -> bool:
        """Rows are missing: of a file with a sound structure they are lost, another may still have them in its pages."""
        with self._busy:
            if time.monotonic() < self._sound_until:
                return False
            try:
                self._database.check()
            except FileDamaged as error:
                self._reopen(str(error))
                return True
            self._sound_until = time.monotonic() + _SOUND_S
            return False

    def _report(self, topic: str, id_: int, found: Sequence[Found]) -> None:
        """Raises OSError: then it must be done again."""
        if found:
            with self._busy:
                damages = [self._losses.damage_of(self._database, topic, id_, it) for it in found]
            self._losses.report(damages)

    # What is made anew.

    def _reopen(self, reason: str) -> None:
        with self._busy:
            if self._damage is None:
                if (gone := self._open_files.fault_of_written()) is not None:
                    self.gone = gone
                    self._write_witness()
                    raise OSError(f"the local log is damaged ({reason}), and can't be made anew: {gone}")
                self._known = Witnessed(self._database.identities, self._database.heads)
                with self._reading:
                    self._reader.close()
                self._database.close()
                self._open_files.close()
            self._damage = reason
            self._rebuild(reason, self._known)
            self._begin_reading()
            self._damage = None
            self._write_witness()

    def _rebuild(self, reason: str, witnessed: Witnessed) -> None:
        """Make another file from what is found in these, and set these aside. `witnessed`: what is known of these."""
        old = [file for file in (self.file, self._wal_before, self._wal) if file.exists()]
        kept = str(self.incidents.folder()) if old else "nothing was left"
        self._logger.error("the local log is damaged, and made anew from what can be read", reason=reason, kept=kept)
        known = merged(heads_of(self.file), witnessed.heads)
        for suffix in ("", "-wal", "-shm"):
            self._new.with_name(self._new.name + suffix).unlink(missing_ok=True)
        with closing(Database(self._new, self._limits, self._reading)) as database:
            restore(
                database,
                self._losses,
                self.file,
                [self._wal_before, self._wal],
                known,
                f"the file was damaged: {reason}",
                witnessed.identities,
                is_final=witnessed.is_final,
            )
            database.settle()
        for file in old:
            self.incidents.take(file)
        self.file.with_name(f"{self.file.name}-shm").unlink(missing_ok=True)
        self._new.rename(self.file)
        sync_directory(self.file.parent)
        self._database = Database(self.file, self._limits, self._reading)

    def _recover(self, witnessed: Witnessed) -> None:
        """Restore what the file lacks of what was acknowledged.

        Its write-ahead log was cut, damaged or removed, or the file is a copy of former times.

        SQLite writes the restored chunks over the frames that it could not read, so these are copied first.
        """
        reason = "the file was behind what had been acknowledged"
        self._logger.error("the local log lacks acknowledged messages; what its write-ahead log still holds is restored")
        if self._wal_before.exists():
            copy_in_place(self._wal_before)
        known = merged(self._database.heads, witnessed.heads)
        restore(self._database, self._losses, None, [self._wal_before], known, reason, is_final=witnessed.is_final)
        if self._wal_before.exists():
            self.incidents.take(self._wal_before)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    if isinstance(error, FileDamaged):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
