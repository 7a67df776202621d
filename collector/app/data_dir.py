"""The data directory: whether there is one, and who has it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from collector.api.query_socket import SOCKET, NotRunning
from collector.app.private_files import make_private, private_files
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import DataDirLock, Locked

# How long a collector that holds the data directory may take to open its query socket: it is starting.
STARTING_MAX_S: Final = 10.0
# In the data directory while a restore is under way, or was broken off (collector/app/backup.py).
RESTORING: Final = "restoring"
# From one look at a data directory that is in use to the next.
LOOK_S: Final = 0.1
T = TypeVar("T")


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


def offline_or_running(settings: Settings, offline: Callable[[], T], running: Callable[[], T]) -> T:
    """What `offline` gives, which opens the data directory itself; or, where someone else has it, who may just be starting,
    what `running` does, which asks that one. Raises CannotRun, and what they raise but Locked and NotRunning."""
    began = time.monotonic()
    while True:
        try:
            return offline()
        except Locked as locked:
            try:
                return running()
            except NotRunning:
                waited_s = time.monotonic() - began
                if locked.command and waited_s > settings.data_dir_wait_s:
                    raise CannotRun(still_in_use(locked, settings)) from None
                if not locked.command and waited_s > STARTING_MAX_S:
                    raise CannotRun(f"{locked}, which does not answer at {settings.data_dir / SOCKET}") from None
                time.sleep(LOOK_S)


def still_in_use(locked: Locked, settings: Settings) -> str:
    """Return what to say of a command that has the data directory for too long."""
    return f"{locked}, still after {settings.data_dir_wait_s:g} s (data_dir_wait_s): wait until it has ended, or end it"
