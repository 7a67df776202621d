"""Read the keys file, and change it, by one process at a time.

Keys that ended more than 90 days ago are left out when the file is next changed, so that it does not grow for ever.

Invariants:
1. A reader sees the whole old file or the whole new file, whatever happens to the process that writes
   (test_a_kill_leaves_the_old_file_or_the_new_one).
2. No change is lost if another change is made at the same time (test_changes_at_the_same_time_are_all_kept).
3. The contents of the file are not enough to send: only the hash of a key is kept (test_a_key_is_kept_as_its_hash).
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from collector.runtime.errors import CannotRun
from collector.tenancy import key_format
from collector.tenancy.key_format import NotAKey
from collector.tenancy.keys_file import EntriesWrong, Key, read_entries, shown, write_entries
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

# In the data directory.
FILE_NAME: Final = "keys.json"
# Some 200,000 keys.
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
ENDED_KEPT: Final = timedelta(days=90)

ADMIN_TENANT: Final = "admin"
_ADMIN_NOTE: Final = "made at the first start"

_LOCK_TRIES: Final = 200
_LOCK_TRY_S: Final = 0.05


class KeysUnusable(CannotRun):
    """The keys file can't be read, is invalid, or can't be changed. The message names the file and the remedy."""


class KeyNotFound(CannotRun):
    """The file has no such key."""


class Created(NamedTuple):
    """A new key: the text, which its owner is shown once, and the entry that is kept."""

    text: str
    key: Key


class Stamp(NamedTuple):
    """The state of a file. Two stamps of one path differ if the file was replaced or changed."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


class KeysDocument(NamedTuple):
    """The contents of a keys file, and the state of the file when it was read."""

    stamp: Stamp
    data: bytes


def path_of(data_dir: Path, keys_file: Path | None) -> Path:
    """Return the path of the keys file from the settings with these names."""
    return data_dir / FILE_NAME if keys_file is None else keys_file


# Reading.


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file; None if there is no such file. Raises KeysUnusable."""
    try:
        return _stamp(path.stat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def read(path: Path) -> KeysDocument | None:
    """Return the document; None if there is no such file. Raises KeysUnusable if it can't be read."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size > FILE_BYTES_MAX:
                raise KeysUnusable(f"the keys file {path} has {found.st_size} bytes; at most {FILE_BYTES_MAX} are read")
            return KeysDocument(_stamp(found), file.read(FILE_BYTES_MAX))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def parse(path: Path, data: bytes) -> list[Key]:
    """Return the keys in `data`, which was read from `path`. Raises KeysUnusable, naming the entry and its error."""
    try:
        return read_entries(data)
    except EntriesWrong as wrong:
        raise KeysUnusable(f"the keys file {path} is broken: {wrong}; fix it, or put back a copy that was good") from None


def list_keys(path: Path) -> list[Key]:
    """Return all keys, in the order in which they were made. Raises KeysUnusable, also if there is no file."""
    document = read(path)
    if document is None:
        raise _no_file(path)
    return parse(path, document.data)


def find(path: Path, key_or_id: str) -> Key:
    """Return a key by its id or by its whole text. Raises KeyNotFound, KeysUnusable."""
    return _find(path, list_keys(path), key_or_id)


# Changing.


def create(
    path: Path, *, tenant: str, scope: Scope, plan: str, note: str = "", origins: Sequence[str] = (), now: datetime
) -> Created:
    """Add a key. Make the file and its directory if they do not exist. Raises KeysUnusable.

    If `origins` is not empty, only pages of these origins may send with the key.

    The caller checks that the plan exists: plans are in the settings, not in this file.
    """
    with _change(path, make_directory=True) as target:
        document = read(target)
        keys = [] if document is None else parse(path, document.data)
        created = _new({key.id for key in keys}, tenant, scope, plan, note, now, origins)
        _write(target, [*keys, created.key], now)
    return created


def end(path: Path, key_id: str, *, at: datetime, now: datetime) -> Key:
    """Let a key end at `at`, unless it ends earlier. Return the changed key.

    Raises KeyNotFound, KeysUnusable.
    """
    at = at.replace(microsecond=0)  # the file has whole seconds; a key that ends now has then ended
    with _change(path) as target:
        keys = list_keys(target)
        key = _find(path, keys, key_id)
        if key.ends is not None and key.ends <= at:
            return key
        ended = key._replace(ends=at)
        _write(target, [ended if other.id == key.id else other for other in keys], now)
    return ended


def ensure_admin_key(path: Path, *, now: datetime) -> str | None:
    """If there is no keys file, make one with an admin key, and return that key to be shown once. Otherwise return None.

    Of several processes that start together, one makes the file. Raises KeysUnusable.
    """
    if stamp_of(path) is not None:  # without the lock, since an existing file may be read-only
        return None
    with _change(path, make_directory=True) as target:
        if stamp_of(target) is not None:
            return None
        created = _new(set(), ADMIN_TENANT, Scope.ADMIN, UNLIMITED.name, _ADMIN_NOTE, now)
        _write(target, [created.key], now)
    return created.text


@contextlib.contextmanager
def _change(path: Path, *, make_directory: bool = False) -> Iterator[Path]:
    """Lock the file inside the `with` block. Yield its path; if `path` is a link, that of the target. Raises KeysUnusable."""
    target = Path(os.path.realpath(path))
    try:
        if make_directory:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif stamp_of(target) is None:
            raise _no_file(path)
        lock = _lock(target)
        try:
            yield target
        finally:
            os.close(lock)  # which unlocks it
    except OSError as error:
        raise KeysUnusable(
            f"cannot change the keys file {path}: {error.strerror}; it is replaced as a whole, so its directory must be"
            " writable, and it may not be a mount of its own"
        ) from error
    except EntriesWrong as wrong:
        raise KeysUnusable(f"cannot change the keys file {path}: {wrong}") from wrong


def _lock(target: Path) -> int:
    """Return an open file that holds the lock. The kernel releases the lock when the process ends, however it ends."""
    # The lock is a file of its own, because the keys file is replaced: two processes could each lock a different one.
    path = target.with_name(f"{target.name}.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        _give_to_owner_of_directory(lock, target)
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_TRY_S)
            else:
                return lock
        raise KeysUnusable(
            f"cannot change the keys file {target}: another process has held {path} for {_LOCK_TRIES * _LOCK_TRY_S:g} s;"
            " see what it is, and try again"
        )
    except BaseException:
        os.close(lock)
        raise


def _write(target: Path, keys: Sequence[Key], now: datetime) -> None:
    """Replace the file. Raises OSError, KeysUnusable, EntriesWrong."""
    data = write_entries([key for key in keys if key.ends is None or key.ends > now - ENDED_KEPT])
    if len(data) > FILE_BYTES_MAX:
        raise KeysUnusable(
            f"the keys file {target} would have {len(data)} bytes, and at most {FILE_BYTES_MAX} are read: revoke keys that"
            f" nobody uses; {ENDED_KEPT.days} days later they are left out"
        )
    new = target.with_name(f"{target.name}.new")
    new.unlink(missing_ok=True)  # left by a killed process: only the holder of the lock writes this file
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as out:  # noqa: PTH123  # a descriptor, whose mode keeps other users out from the first byte on
            _inherit(file, target)
            out.write(data)
            out.flush()
            os.fsync(file)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # otherwise a power cut could bring back the old file, and with it a revoked key
    finally:
        os.close(directory)


def _inherit(file: int, target: Path) -> None:
    """Copy owner, group and mode of the old file, so that the gateways that could read it still can."""
    try:
        old = target.stat()
    except FileNotFoundError:
        _give_to_owner_of_directory(file, target)
        return
    try:
        os.fchown(file, old.st_uid, old.st_gid)
    except PermissionError:
        raise KeysUnusable(
            f"cannot change the keys file {target}: it belongs to user {old.st_uid} and group {old.st_gid}, and the new file"
            " would not; run this as that user, or as root"
        ) from None
    os.fchmod(file, stat.S_IMODE(old.st_mode))


def _give_to_owner_of_directory(file: int, target: Path) -> None:
    """If this is root, give the file to the directory's owner. Otherwise the collector could not read it."""
    if os.geteuid() == 0:
        owner = target.parent.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)


def _new(ids: set[str], tenant: str, scope: Scope, plan: str, note: str, now: datetime, origins: Sequence[str] = ()) -> Created:
    text = key_format.new()
    while (key_id := key_format.id_of(text)) in ids:
        text = key_format.new()
    key = Key(
        key_id,
        tenant,
        scope,
        plan,
        key_format.sha256_of(text),
        now.replace(microsecond=0),
        ends=None,
        note=note,
        origins=tuple(origins),
    )
    return Created(text, key)


def _find(path: Path, keys: Sequence[Key], key_or_id: str) -> Key:
    if key_or_id.startswith(key_format.PREFIX):
        try:
            key_id = key_format.id_of(key_or_id)
        except NotAKey as error:
            raise KeyNotFound(f"this is not a valid key; it may be mistyped or cut: {error}") from None
        sha256 = key_format.sha256_of(key_or_id)
        found = next((key for key in keys if key.sha256 == sha256), None)
    else:
        key_id = key_or_id
        found = next((key for key in keys if key.id == key_or_id), None)
    if found is None:
        raise KeyNotFound(f"there is no key {shown(key_id)} in {path}; `keys list` shows those that there are")
    return found


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _unreadable(path: Path, error: OSError) -> KeysUnusable:
    return KeysUnusable(
        f"cannot read the keys file {path}: {error.strerror}; choose another with --keys-file or tenants.keys_file"
    )


def _no_file(path: Path) -> KeysUnusable:
    return KeysUnusable(f"there is no keys file {path}: `keys create` makes it; choose another with --keys-file or --data-dir")
