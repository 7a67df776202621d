"""Backs up and restores the embedded form: the local log, the embedded store and the keys file.

The process that has locked the data directory makes a snapshot in it. The writer pauses between two ranges, the log is copied,
and the parts of the store are hard-linked. Requests are accepted during this short time. The command then copies the snapshot
to its target, with a checksum of each file.

The writer removes a message from the log only after the message is stored. So while the writer pauses, everything acknowledged
is in the log or in the store. A range is in both only if its insert was interrupted. Then the log has the range's intent, so
the range is looked up in the store before it is inserted again.

Invariants (tests in tests/system/test_backup.py):
1. Everything acknowledged before the command began is in the backup, and is stored once after a restore.
   test_a_backup_under_load
2. A backup that was interrupted has no manifest, and its directory has another name. test_a_backup_that_breaks_off_is_none
3. A restore writes only into a directory without data, and only the files that the manifest names.
   test_a_damaged_backup_is_not_restored
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict

from collector.api.query_client import SNAPSHOT, ask_snapshot
from collector.app.data_dir import (
    RESTORING,
    check_there,
    is_embedded,
    locked_data_dir,
    offline_only,
    offline_or_running,
    store_dir,
)
from collector.app.storage import Storage, open_storage
from collector.broker.contract import BrokerError
from collector.broker.local_log import LocalLog
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.version import VERSION
from collector.store import snapshot
from collector.store.contract import StoreError
from collector.telemetry import logs
from collector.telemetry.metrics import Metrics
from collector.tenancy import keys

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
# How long the snapshot waits for the current range. By then its insert has succeeded, or it fails repeatedly.
PAUSE_MAX_S: Final = 60.0
_STORE: Final = "store"
_LOG: Final = "log"
_KEYS: Final = "keys.json"
# Files are moved to their places in this order. Until all are moved, no collector starts on them (data_dir.RESTORING).
_RESTORED: Final = (_STORE, _KEYS, "log.acknowledged", _LOG)
_CHUNK_BYTES: Final = 1024 * 1024

Pause = Callable[[float], AbstractAsyncContextManager[None]]


class Taken(TypedDict):
    """A snapshot: the identity of its log, and for how long the writer was paused."""

    log: str
    paused_s: float


class Done(NamedTuple):
    """The result of a backup or a restore: the number of copied files, and their size. `paused_s` is for how long the writer
    was paused; 0 for a restore."""

    files: int
    size_bytes: int
    paused_s: float


class Snapshots:
    """Makes and removes snapshots of the data directory that this process has locked."""

    def __init__(self, settings: Settings, storage: Storage, pause: Pause) -> None:
        self._data_dir: Final = settings.data_dir
        self._keys_file: Final = keys.path_of(settings.data_dir, settings.tenants.keys_file)
        self._storage: Final = storage
        self._pause: Final = pause

    async def take(self) -> Taken:
        """Make a snapshot in place of an earlier one, and return its description. Raises CannotRun."""
        log, store = self._storage.broker, self._storage.store
        if not isinstance(log, LocalLog):
            raise CannotRun("only the embedded form is backed up by this command: Kafka and ClickHouse have their own means")
        place = self._data_dir / SNAPSHOT
        await self.remove()
        try:
            place.mkdir(mode=0o700)
            async with self._pause(PAUSE_MAX_S):
                began_s = time.monotonic()
                await log.copy_to(place / _LOG)
                await asyncio.to_thread(store.freeze, SNAPSHOT)
                await asyncio.to_thread(snapshot.take, store_dir(self._data_dir), SNAPSHOT, place / _STORE)
                paused_s = time.monotonic() - began_s
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self._keys_file, place / _KEYS)
        except TimeoutError:
            raise CannotRun(
                f"the writer has worked on one range for more than {PAUSE_MAX_S:g} s: see its log, and try again"
            ) from None
        except (OSError, BrokerError, StoreError) as error:
            raise CannotRun(f"cannot make a snapshot in {place}: {error}") from error
        return Taken(log=log.identity, paused_s=paused_s)

    async def remove(self) -> None:
        """Remove the snapshot, if there is one. Raises CannotRun."""
        try:
            await asyncio.to_thread(_remove, self._data_dir / SNAPSHOT)
            await asyncio.to_thread(snapshot.remove_frozen, store_dir(self._data_dir), SNAPSHOT)
        except OSError as error:
            raise CannotRun(f"cannot remove the snapshot in {self._data_dir}: {error}") from error


def backup(settings: Settings, target: Path) -> Done:
    """Back up the data directory into a new directory `target`. Works with and without a running collector. Raises
    CannotRun."""
    if settings.kafka.bootstrap or not is_embedded(settings):
        raise CannotRun("only the embedded form is backed up by this command: Kafka and ClickHouse have their own means")
    logs.set_up_quietly(settings.logging)
    check_there(store_dir(settings.data_dir), f"store in {settings.data_dir}")
    if target.exists():
        raise CannotRun(f"cannot back up to {target}: it exists already; name a new directory")
    try:
        with _exclusive_backup(settings.data_dir):
            return offline_or_running(
                settings,
                lambda: asyncio.run(_backup_offline(settings, target)),
                lambda: _backup_running(settings, target),
            )
    except OSError as error:
        raise CannotRun(f"cannot back up to {target}: {error}") from error


def restore(settings: Settings, source: Path) -> Done:
    """Put a backup into the data directory, which must have no data. Raises CannotRun."""
    manifest = _read_manifest(source)
    return offline_only(settings, lambda: _restored(settings, source, manifest), "stop it, or choose another with --data-dir")


def _restored(settings: Settings, source: Path, manifest: dict[str, Any]) -> Done:
    data_dir = settings.data_dir
    with locked_data_dir(settings, is_needed=True, command="restore", restoring=True):
        place = data_dir / RESTORING
        try:
            if place.exists():  # an earlier restore was interrupted, and left a part of its backup
                for name in _RESTORED:
                    _remove(data_dir / name)
                _remove(place)
            present = [name for name in _RESTORED if (data_dir / name).exists()]
            if present:
                raise CannotRun(
                    f"cannot restore into {data_dir}: it has data already ({', '.join(present)}); move it away, or choose"
                    " another directory with --data-dir"
                )
            place.mkdir(mode=0o700)
            try:
                done = _copy_checked(source, place, manifest)
            except BaseException:
                _remove(place)
                raise
            os.sync()
            for name in _RESTORED:
                if (place / name).exists():
                    (place / name).rename(data_dir / name)
            place.rmdir()
            os.sync()
        except OSError as error:
            raise CannotRun(f"cannot restore {source} into {data_dir}: {error}") from error
    return done


async def _backup_offline(settings: Settings, target: Path) -> Done:
    async with open_storage(settings, Metrics(), "backup") as storage:
        # No writer runs here. If a writer was killed during a range, the range is looked up after a restore, as after any
        # start.
        snapshots = Snapshots(settings, storage, lambda _: contextlib.nullcontext())
        try:
            return _copy(settings.data_dir / SNAPSHOT, await snapshots.take(), target)
        finally:
            await snapshots.remove()


def _backup_running(settings: Settings, target: Path) -> Done:
    taken = ask_snapshot(settings.data_dir, "take")
    try:
        return _copy(settings.data_dir / SNAPSHOT, Taken(log=taken["log"], paused_s=taken["paused_s"]), target)
    finally:
        ask_snapshot(settings.data_dir, "remove")


@contextlib.contextmanager
def _exclusive_backup(data_dir: Path) -> Iterator[None]:
    """Hold a lock, so that only one backup of the data directory runs at a time. The kernel releases the lock when the process
    ends. Raises CannotRun if another backup runs, OSError."""
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(f"another backup of {data_dir} is under way: wait for its end") from None
        yield
    finally:
        os.close(directory)


def _copy(place: Path, taken: Taken, target: Path) -> Done:
    """Copy a snapshot from `place` into the new directory `target`, with a manifest. Raises OSError."""
    partial = target.with_name(f"{target.name}.partial")
    _remove(partial)
    partial.mkdir(mode=0o700, parents=True)
    files: dict[str, Any] = {}
    links: dict[str, str] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        copied = partial / name
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_dir():
            copied.mkdir(mode=0o700)
        else:
            digest, size = _copy_file(path, copied)
            files[name] = {"bytes": size, "sha256": digest}
    directories = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if _is_directory(path))
    manifest = {
        "format": FORMAT,
        "collector": VERSION,
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "log": taken["log"],
        "files": files,
        "links": links,
        "directories": directories,
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    os.sync()  # fsync of thousands of small files, one after another, would take far longer
    partial.rename(target)
    os.sync()
    return Done(len(files), sum(it["bytes"] for it in files.values()), taken["paused_s"])


def _read_manifest(source: Path) -> dict[str, Any]:
    file = source / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise CannotRun(f"{source} is no backup: it has no {MANIFEST}; an interrupted backup has none") from None
    except (OSError, ValueError) as error:
        raise CannotRun(f"cannot read {file}: {error}") from error
    if manifest.get("format") != FORMAT:
        raise CannotRun(
            f"{file} has format {manifest.get('format')}, and this program reads {FORMAT}: use the program that made it"
        )
    return manifest


def _copy_checked(source: Path, place: Path, manifest: dict[str, Any]) -> Done:
    """Copy the files of a backup from `source` to `place`, and check them against the manifest. Raises CannotRun, OSError."""
    for name in (*manifest["directories"], *manifest["links"], *manifest["files"]):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CannotRun(f"the backup {source} is damaged: its manifest names {name}; nothing was restored")
    for name in manifest["directories"]:
        (place / name).mkdir(mode=0o700, parents=True)
    for name, link in manifest["links"].items():
        (place / name).symlink_to(link)
    for name, expected in manifest["files"].items():
        try:
            digest, size = _copy_file(source / name, place / name)
        except FileNotFoundError:
            raise CannotRun(f"the backup {source} is damaged: {name} is missing; nothing was restored") from None
        if (digest, size) != (expected["sha256"], expected["bytes"]):
            raise CannotRun(
                f"the backup {source} is damaged: {name} has {size:,} bytes with another checksum than when it was written"
                f" ({expected['bytes']:,} bytes); nothing was restored"
            )
    return Done(len(manifest["files"]), sum(it["bytes"] for it in manifest["files"].values()), 0.0)


def _copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file, and return its checksum and its size. Only the owner may read and write the copy. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as read, os.fdopen(descriptor, "wb") as written:
        while chunk := read.read(_CHUNK_BYTES):
            digest.update(chunk)
            written.write(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
