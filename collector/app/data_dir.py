"""The data directory: whether there is one, and who has it."""

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

# In the data directory while a restore is under way, or was broken off (collector/app/backup.py).
RESTORING: Final = "restoring"
# From one look at a data directory that is in use to the next.
LOOK_S: Final = 0.1
T = TypeVar("T")
log = structlog.get_logger(__name__)


def is_embedded(settings: Settings) -> bool:
    """Return whether the store is the embedded engine."""
    return not settings.clickhouse.url


def has_data_dir(settings: Settings) -> bool:
    """Return whether the log or the store is in it."""
    return not settings.kafka.bootstrap or is_embedded(settings)


def store_dir(data_dir: Path) -> Path:
    """Return the directory of the embedded engine's data."""
    return data_dir / "store"


def check_there(directory: Path, what: str) -> None:
    """For a command that asks: what it would ask is there. Raises CannotRun."""
    if not directory.is_dir():
        raise CannotRun(f"there is no {what}: no collector has ever run there; --data-dir names another directory")


@contextmanager
def locked_data_dir(settings: Settings, *, wanted: bool, command: str, restoring: bool = False) -> Iterator[None]:
    """Made, locked, and closed to other users. `command`: as Locked has it. Raises CannotRun, Locked; unless `restoring`, also
    on half of a backup."""
    if not wanted:
        yield
        return
    data_dir = settings.data_dir
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(f"cannot make the data directory {data_dir}: {error.strerror}; --data-dir names another") from error
    try:
        lock = DataDirLock(data_dir, command)
    except OSError as error:
        raise CannotRun(f"cannot use the data directory {data_dir}: {error.strerror}") from error
    with lock, private_files():
        if not restoring and (data_dir / RESTORING).exists():
            raise CannotRun(f"a restore into {data_dir} was broken off: run `infrasage-collector restore` again")
        try:
            make_private(data_dir)
        except OSError as error:
            raise CannotRun(f"cannot look through the data directory {data_dir}: {error.strerror}: {error.filename}") from error
        yield


class DataDirWait:
    """The one rule about a data directory that is in use: a command, and a collector that does not listen at its query socket,
    because it is starting or ending, are waited for, up to data_dir_wait_s. A collector that listens is not."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._began: Final = time.monotonic()
        self._is_said = False

    def look(self, locked: Locked) -> None:
        """Call every LOOK_S while it is in use. Says so once. Raises CannotRun when it has taken too long."""
        wait_s = self._settings.data_dir_wait_s
        if time.monotonic() - self._began > wait_s:
            does_not_listen = "" if locked.command else f", which does not answer at {self._settings.data_dir / SOCKET}"
            raise CannotRun(
                f"{locked}{does_not_listen}, still after {wait_s:g} s (data_dir_wait_s): wait until it has ended, or end it"
            )
        if not self._is_said:
            self._is_said = True
            log.warning("the data directory is in use, and waited for", reason=str(locked), wait_s=wait_s)


def offline_or_running(settings: Settings, offline: Callable[[], T], running: Callable[[], T]) -> T:
    """What `offline` gives, which opens the data directory itself; or, where a collector runs on it, what `running` does, which
    asks that one. Raises CannotRun, and what they raise but Locked and NotRunning."""
    wait = DataDirWait(settings)
    while True:
        try:
            return offline()
        except Locked as locked:
            try:
                return running()
            except NotRunning:
                wait.look(locked)
        time.sleep(LOOK_S)


def offline_only(settings: Settings, offline: Callable[[], T], instead: str) -> T:
    """What `offline` gives, which opens the data directory itself. `instead`: what to do where a collector runs on it. Raises
    CannotRun, and what `offline` raises but Locked."""
    wait = DataDirWait(settings)
    while True:
        try:
            return offline()
        except Locked as locked:
            if is_listening(settings.data_dir):
                raise CannotRun(f"{locked}: {instead}") from None
            wait.look(locked)
        time.sleep(LOOK_S)
