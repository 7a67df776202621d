"""The data directory: whether the settings need one, and which process has locked it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from collector.api.query_client import SOCKET, NotRunning, is_listening
from collector.app.private_files import make_private, private_files
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import DataDirLock, Locked

# The directory of a restore that is running or was interrupted, in the data directory (collector/app/backup.py).
RESTORING: Final = "restoring"
# The time between two checks of a data directory that is in use.
LOOK_S: Final = 0.1
T = TypeVar("T")
log = structlog.get_logger(__name__)


def is_embedded(settings: Settings) -> bool:
    """Return whether the store is the embedded engine."""
    return not settings.clickhouse.url


def has_data_dir(settings: Settings) -> bool:
    """Return whether the log or the store is in the data directory."""
    return not settings.kafka.bootstrap or is_embedded(settings)


def store_dir(data_dir: Path) -> Path:
    """Return the directory of the embedded engine's data."""
    return data_dir / "store"


def check_there(directory: Path, what: str) -> None:
    """Check that a directory exists that a command is about to read. `what` names it in the error. Raises CannotRun if it does
    not."""
    if not directory.is_dir():
        raise CannotRun(f"there is no {what}: no collector has ever run there; choose another directory with --data-dir")


@contextmanager
def locked_data_dir(settings: Settings, *, is_needed: bool, command: str, restoring: bool = False) -> Iterator[None]:
    """Make the data directory, lock it, and remove the rights of other users. Do nothing unless `is_needed`. `command` is as in
    Locked.

    Raises CannotRun, Locked. Unless `restoring`, also raises CannotRun if a restore was interrupted."""
    if not is_needed:
        yield
        return
    data_dir = settings.data_dir
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(
            f"cannot make the data directory {data_dir}: {error.strerror}; choose another with --data-dir"
        ) from error
    try:
        lock = DataDirLock(data_dir, command)
    except OSError as error:
        raise CannotRun(f"cannot use the data directory {data_dir}: {error.strerror}") from error
    with lock, private_files():
        if not restoring and (data_dir / RESTORING).exists():
            raise CannotRun(f"a restore into {data_dir} was interrupted: run `infrasage-collector restore` again")
        try:
            make_private(data_dir)
        except OSError as error:
            raise CannotRun(
                f"cannot check the rights of files in the data directory {data_dir}: {error.strerror}: {error.filename}"
            ) from error
        yield


class DataDirWait:
    """Decides how long to wait for a data directory that another process has locked.

    It waits up to data_dir_wait_s for a command, and for a collector that does not listen on its query socket because it is
    starting or stopping. It does not wait for a collector that listens."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._began: Final = time.monotonic()
        self._is_logged = False

    def check(self, locked: Locked) -> None:
        """Note that the directory is in use, and log that once. Call this every LOOK_S. Raises CannotRun after
        data_dir_wait_s."""
        wait_s = self._settings.data_dir_wait_s
        if time.monotonic() - self._began > wait_s:
            does_not_listen = "" if locked.command else f", which does not answer at {self._settings.data_dir / SOCKET}"
            raise CannotRun(
                f"{locked}{does_not_listen}, still after {wait_s:g} s (data_dir_wait_s): wait until it has ended, or end it"
            )
        if not self._is_logged:
            self._is_logged = True
            log.warning("the data directory is in use: waiting for it", reason=str(locked), wait_s=wait_s)


def offline_or_running(settings: Settings, offline: Callable[[], T], running: Callable[[], T]) -> T:
    """Return the result of `offline`, which opens the data directory itself; or, if a collector runs on it, of `running`, which
    asks that collector. Raises CannotRun, and their errors except Locked and NotRunning."""
    wait = DataDirWait(settings)
    while True:
        try:
            return offline()
        except Locked as locked:
            try:
                return running()
            except NotRunning:
                wait.check(locked)
        time.sleep(LOOK_S)


def offline_only(settings: Settings, offline: Callable[[], T], instead: str) -> T:
    """Return the result of `offline`, which opens the data directory itself. `instead` is what to do if a collector runs on it,
    for the error. Raises CannotRun, and the errors of `offline` except Locked."""
    wait = DataDirWait(settings)
    while True:
        try:
            return offline()
        except Locked as locked:
            if is_listening(settings.data_dir):
                raise CannotRun(f"{locked}: {instead}") from None
            wait.check(locked)
        time.sleep(LOOK_S)
