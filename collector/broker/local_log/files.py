"""The files of the log together: the database, the connection that reads, and the witness, and their repair after damage.

The witness records how far the log had come. If the database is behind it at the start, acknowledged messages are gone. If
SQLite can't use the database, or rows of it are missing, it is rebuilt from the messages that its pages still hold. Messages
that are not found are reported, and the log goes on behind them, with offsets that were never used.

Invariants:
1. Offsets never repeat while the witness or the database exists (test_offsets_go_on_after_a_loss).
2. Committed messages are not polled again (test_an_old_copy_is_not_stored_again).
3. A damaged file is moved aside, never deleted (test_a_damaged_header_costs_nothing,
   test_a_flipped_byte_of_the_wal_costs_at_most_its_message).
4. One process at a time uses the files, even if the lock of the data directory was removed
   (test_a_log_is_used_by_one_process).
5. Nothing is acknowledged once the files were removed, replaced or cut. Their messages can still be read and committed
   (test_a_log_that_is_removed_takes_nothing, test_a_log_that_is_cut_takes_nothing).
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import structlog

from collector.broker.contract import BrokerDown, BrokerError, Range
from collector.broker.local_log import schema
from collector.broker.local_log.database import FileDamaged, make_directory, transact_in_place
from collector.broker.local_log.disk_checks import DiskChecks
from collector.broker.local_log.incidents import Incidents
from collector.broker.local_log.limits import LocalLogLimits, LocalLogUnusable
from collector.broker.local_log.lineage import Branch, Epoch
from collector.broker.local_log.losses import LossReports
from collector.broker.local_log.open_files import OpenFiles
from collector.broker.local_log.opening import LogOpening, is_damage
from collector.broker.local_log.plan import PartitionHead, Probe, Skip, Work
from collector.broker.local_log.reader import Found, LogReader
from collector.broker.local_log.recovery import copy_log
from collector.broker.local_log.witness import Witnessed, read_witness, trusted_witness
from collector.broker.local_log.witness_keeper import WitnessKeeper
from collector.runtime.disk import Disk

# How long a structure that was found to be sound is trusted if more messages are missing.
_SOUND_S: Final = 60.0
log = structlog.get_logger(__name__)


class LogFiles:
    """Reads, writes and repairs the files. The methods take a lock, so one thread at a time writes. Another thread reads."""

    def __init__(self, directory: Path, limits: LocalLogLimits, store: Path | None) -> None:
        """Use `open`."""
        self.file: Final = directory / schema.FILE_NAME
        self.disk: Final = Disk(
            directory.parent,
            limits.reserve_percent,
            limits.reserve_bytes_min,
            limits.reserve_bytes_max,
            mounts=[directory],
        )
        self.incidents: Final = Incidents(directory.parent)
        self.losses: Final = LossReports(self.incidents)
        self._limits: Final = limits
        self._wal: Final = self.file.with_name(f"{self.file.name}-wal")
        self._witness_file: Final = directory.with_name(f"{directory.name}.acknowledged")
        self._in_store_file: Final = None if store is None else store / self._witness_file.name
        self._in_store: WitnessKeeper | None = None
        self._locked = -1  # a descriptor of the directory
        self._busy: Final = threading.RLock()
        self._reading: Final = threading.Lock()
        self._opening: Final = LogOpening(self.file, limits, self._reading, self.incidents, self.losses)
        self._branch: Branch | None = None
        self._damage: str | None = None
        """Why the file must be rebuilt before it can be used; None if it can be used."""
        self._known = Witnessed((), {})
        self._sound_until = 0.0
        self._disk_checks: Final = DiskChecks(self.disk)
        self._copying: Final = threading.Lock()
        self.gone: str | None = None
        """Why nothing is appended: the files were removed, replaced or cut. None if they were not."""

    @classmethod
    def open(cls, directory: Path, limits: LocalLogLimits, store: Path | None) -> Self:
        """Open or make the files. `store` is the directory of the embedded store, if there is one. Raises LocalLogUnusable."""
        files = cls(directory, limits, store)
        try:
            make_directory(directory)
            files._lock(directory)
            try:
                files._open()
            except BaseException:
                files._unlock()
                raise
        except (OSError, sqlite3.Error) as error:
            raise LocalLogUnusable(f"cannot open the local log {files.file}: {error}") from error
        return files

    def _lock(self, directory: Path) -> None:
        """Lock the directory. Raises LocalLogUnusable, OSError."""
        self._locked = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unlock()
            raise LocalLogUnusable(f"cannot open the local log {self.file}: another process uses it") from None
        except OSError:  # NFS locks no directory: there is only the lock of the data directory
            self._unlock()

    def _unlock(self) -> None:
        if self._locked >= 0:
            os.close(self._locked)
            self._locked = -1

    def _open(self) -> None:
        self._opening.take_write_ahead_log()
        own = read_witness(self._witness_file)
        witnessed = trusted_witness(own, self._read_in_store())
        if witnessed is None:
            self._database = self._opening.without_witness(self._witness_file)
        else:
            if own is None:
                self._opening.witness_is_lost(self._witness_file)
            self._database, self._branch = self._opening.with_witness(witnessed)
        self._begin_reading()
        self._branch = None
        self._opening.is_done()
        self._witness = WitnessKeeper(self._witness_file, lambda: self.check() is None)
        self._write_witness()
        self._witness.sync()
        self.witness_in_store()

    def _read_in_store(self) -> Witnessed | None:
        with suppress(OSError):
            return None if self._in_store_file is None else read_witness(self._in_store_file)
        return None

    def witness_in_store(self) -> None:
        """From now on, also note in the store's directory how far the log has come, if that directory exists."""
        with self._busy:
            file = self._in_store_file
            if self._in_store is not None or file is None or not file.parent.is_dir():
                return
            try:
                self._in_store = WitnessKeeper(file, file.parent.is_dir)
                self._in_store.write(self._witnessed())
                self._in_store.sync()
            except OSError as error:
                log.warning("cannot note in the store how far the local log has come", file=str(file), error=str(error))

    def _begin_reading(self) -> None:
        self._database.settle(self._branch)
        self._reader = LogReader(self.file, self._database.identity, self._reading)
        self._open_files = OpenFiles(self.file, self._wal)

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
    def lineage(self) -> tuple[Epoch, ...]:
        """Return the last starts; this start is last."""
        return self._database.lineage

    @property
    def is_new(self) -> bool:
        """Return whether the file was made just now, and no earlier file is known."""
        return self._database.is_new

    def transact(self, works: Sequence[Work]) -> list[BrokerError | None]:
        """Execute Database.transact; rebuild a damaged file first. Raises sqlite3.Error, OSError: then nothing was done."""
        with self._busy:
            if self._damage is not None:
                self._reopen(self._damage)
            if self.gone is not None or any(isinstance(work, Probe) for work in works):
                self.gone = self.check()
            self._disk_checks.check(works, self._database, self._open_files, is_copying=self._copying.locked())
            try:
                refusals = self._transact(works)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
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
        witnessed = self._witnessed()
        self._witness.write(witnessed)
        if self._in_store is not None:
            self._in_store.write(witnessed)

    def _witnessed(self) -> Witnessed:
        database = self._database
        return Witnessed(database.identities, database.heads, self.gone is not None, database.lineage)

    def check(self) -> str | None:
        """Return how the files were removed, replaced or cut; None if they were not. Called by any thread."""
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
        """Return whether the files were cut: then only a restart helps."""
        return self._open_files.cut is not None

    def tidy(self, idle: Callable[[], bool]) -> None:
        """Execute Database.tidy, and sync the witness if that is due. Raises sqlite3.Error, OSError."""
        with self._busy:
            self.sync_witness()
            # A copy uses the write-ahead log: truncating it would wait for the copy, and delay appends.
            if self._damage is None and self.gone is None and not self._copying.locked():
                if self._open_files.frames_ahead >= max(1, self._limits.wal_bytes_max // schema.PAGE_BYTES):
                    self._database.checkpoint()
                    self._open_files.fault_of_written()
                if self._database.tidy(idle, is_disk_low=self.disk.is_low):
                    self._open_files.fault_of_written()

    @property
    def is_witness_synced(self) -> bool:
        return self._witness.is_synced and (self._in_store is None or self._in_store.is_synced)

    def sync_witness(self) -> None:
        """Sync the witnesses, at most once a second."""
        with self._busy:
            self._witness.sync_now_and_then()
            if self._in_store is not None:
                self._in_store.sync_now_and_then()

    def copy_to(self, directory: Path) -> None:
        """Write a snapshot of the log into `directory`, and its witness next to that; appends go on meanwhile. Raises OSError,
        sqlite3.Error."""
        if (gone := self.check()) is not None:
            raise OSError(gone)
        with self._copying:
            copy_log(self.file, self._witness_file.name, self._limits, directory)

    def close(self) -> None:
        with self._busy:
            # The reader first: the last connection to close checkpoints, and that must be the connection that writes.
            is_gone = self._open_files.fault_of_written() is not None
            self._reader.close(is_gone=is_gone)
            self._database.close(is_done=not is_gone)
            if not is_gone:
                self._open_files.close()
            for witness in (self._witness, self._in_store):
                if witness is not None:
                    with suppress(OSError):
                        witness.sync()
                    witness.close()
            self._unlock()

    # Reading, and damage that it finds.

    def read(self, topic: str, head: PartitionHead, bytes_max: int) -> Range | Skip | None:
        """Return the range from `head` on; or, if its messages can't be read, the messages to skip, which are reported. Return
        None if the file was rebuilt, so that the caller asks again. Raises BrokerDown."""
        try:
            range_, found = self._reader.read(topic, head, bytes_max)
            if any(it.row is None for it in found) and self._rebuild_if_damaged():
                return None
            self._report(topic, head.id, found)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                try:
                    self._reopen(str(error))
                except (OSError, sqlite3.Error) as another:
                    error = sqlite3.DatabaseError(f"{error}; it cannot be rebuilt: {another}")
                else:
                    return None
            raise BrokerDown(f"cannot read {topic} from offset {head.committed} in {self.file}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            raise BrokerDown(f"cannot read {topic} from offset {head.committed} in {self.file}: {error}") from error
        if range_ is not None:
            self.losses.remember(range_)
            return range_
        return Skip(topic, found[0].start, found[-1].end)

    def _rebuild_if_damaged(self) -> bool:
        """Rebuild the file, from which rows are missing, if its structure is damaged: its pages may still have them. In a sound
        file they are lost. Return whether it was rebuilt."""
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
        """Report the messages that can't be read. Raises OSError: then it must be done again."""
        if found:
            with self._busy:
                damages = [self.losses.damage_of(self._database, topic, id_, it) for it in found]
            self.losses.report(damages)

    # Rebuilding.

    def _reopen(self, reason: str) -> None:
        with self._busy:
            if self._damage is None:
                if (gone := self._open_files.fault_of_written()) is not None:
                    self.gone = gone
                    self._write_witness()
                    raise OSError(f"the local log is damaged ({reason}), and cannot be rebuilt: {gone}")
                self._known = self._witnessed()
                with self._reading:
                    self._reader.close()
                self._database.close()
                self._open_files.close()
            self._damage = reason
            self._database = self._opening.rebuilt(reason, self._known)
            self._begin_reading()
            self._damage = None
            self._write_witness()
