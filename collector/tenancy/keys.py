"""The keys file: read, and changed by one process at a time.

Keys that ended long ago are left out when the file is next changed, so that it does not grow for ever.

Invariants:
1. A reader sees the old file or the new one, whole, whatever happens to the process that writes
   (test_a_kill_leaves_the_old_file_or_the_new_one).
2. No change is lost to another one that is made at the same time (test_changes_at_the_same_time_are_all_kept).
3. Nothing in the file lets anybody send: only the hash of a key is kept (test_a_key_is_kept_as_its_hash).
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
    """The keys file can't be read, is not what it must be, or can't be changed; the message names it and what to do."""


class KeyNotFound(CannotRun):
    """There is no such key in the file."""


class Created(NamedTuple):
    """A new key: what its owner is shown, once, and what is kept."""

    text: str
    key: Key


class Stamp(NamedTuple):
    """Two of one path differ when it is another file, or when the file has changed."""

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
    """Return the path of the keys file, by the settings of these names."""
    return data_dir / FILE_NAME if keys_file is None else keys_file


# Reading.


def stamp_of(path: Path) -> Stamp | None:
    """None: there is no such file. Raises KeysUnusable."""
    try:
        return _stamp(path.stat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def read(path: Path) -> KeysDocument | None:
    """None: there is no such file. Raises KeysUnusable where it can't be read."""
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
    """The keys in what was read from `path`. Raises KeysUnusable, naming the entry and what is wrong with it."""
    try:
        return read_entries(data)
    except EntriesWrong as wrong:
        raise KeysUnusable(f"the keys file {path} is broken: {wrong}; mend it, or put back a copy that was good") from None


def list_keys(path: Path) -> list[Key]:
    """All of them, in the order in which they were made. Raises KeysUnusable, also where there is no file."""
    document = read(path)
    if document is None:
        raise _no_file(path)
    return parse(path, document.data)


def find(path: Path, wanted: str) -> Key:
    """A key by its id, or by the whole of it. Raises KeyNotFound, KeysUnusable."""
    return _find(path, list_keys(path), wanted)


# Changing.


def create(
    path: Path, *, tenant: str, scope: Scope, plan: str, note: str = "", origins: Sequence[str] = (), now: datetime
) -> Created:
    """Add a key; make the file and its directory where there is none. Raises KeysUnusable.

    `origins`: whose pages alone may send with it; empty: every sender that has it.

    Whether there is such a plan is for the caller to know: the settings say so, not this file.
    """
    with _change(path, make_directory=True) as target:
        document = read(target)
        keys = [] if document is None else parse(path, document.data)
        created = _new({key.id for key in keys}, tenant, scope, plan, note, now, origins)
        _write(target, [*keys, created.key], now)
    return created


def end(path: Path, key_id: str, *, at: datetime, now: datetime) -> Key:
    """Let a key end at `at`, or when it would have ended if that is before. The key as it is then.

    Raises KeyNotFound, KeysUnusable.
    """
    at = at.replace(microsecond=0)  # down to what the file has, so that what ends now has ended
    with _change(path) as target:
        keys = list_keys(target)
        key = _find(path, keys, key_id)
        if key.ends is not None and key.ends <= at:
            return key
        ended = key._replace(ends=at)
        _write(target, [ended if other.id == key.id else other for other in keys], now)
    return ended


def ensure_admin_key(path: Path, *, now: datetime) -> str | None:
    """Where there is no keys file, make one with an admin key, and return that key to be shown once; else None.

    Of several processes that start together, one makes it. Raises KeysUnusable.
    """
    if stamp_of(path) is not None:  # it may be one that can only be read
        return None
    with _change(path, make_directory=True) as target:
        if stamp_of(target) is not None:
            return None
        created = _new(set(), ADMIN_TENANT, Scope.ADMIN, UNLIMITED.name, _ADMIN_NOTE, now)
        _write(target, [created.key], now)
    return created.text


@contextlib.contextmanager
def _change(path: Path, *, make_directory: bool = False) -> Iterator[Path]:
    """While inside, nobody else changes the file. Gives the file itself, where `path` is a link to it. Raises KeysUnusable."""
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
    """An open file that holds the lock. The kernel lets go of it when the process ends, however it ends."""
    # Beside the file and not the file itself: that is replaced, and each would hold the lock of another one.
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
    new.unlink(missing_ok=True)  # of one that was killed: only who holds the lock writes it
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as out:  # noqa: PTH123  # a descriptor, which nobody else could read from the first byte on
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
        os.fsync(directory)  # or a power cut could bring the old one back, and with it a key that was revoked
    finally:
        os.close(directory)


def _inherit(file: int, target: Path) -> None:
    """Owner, group and mode of the file that is replaced: the gateways that could read it still can."""
    try:
        old = target.stat()
    except FileNotFoundError:
        _give_to_owner_of_directory(file, target)
        return
    try:
        os.fchown(file, old.st_uid, old.st_gid)
    except PermissionError:
        raise KeysUnusable(
            f"cannot change the keys file {target}: it is of user {old.st_uid} and group {old.st_gid}, and a new one would not"
            " be; run this as that user, or as root"
        ) from None
    os.fchmod(file, stat.S_IMODE(old.st_mode))


def _give_to_owner_of_directory(file: int, target: Path) -> None:
    """Give the file to the directory's owner: what root makes must be the collector's, or it could not read it."""
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


def _find(path: Path, keys: Sequence[Key], wanted: str) -> Key:
    if wanted.startswith(key_format.PREFIX):
        try:
            key_id = key_format.id_of(wanted)
        except NotAKey as error:
            raise KeyNotFound(f"this is not a key as it was made, perhaps mistyped or cut: {error}") from None
        sha256 = key_format.sha256_of(wanted)
        found = next((key for key in keys if key.sha256 == sha256), None)
    else:
        key_id = wanted
        found = next((key for key in keys if key.id == wanted), None)
    if found is None:
        raise KeyNotFound(f"there is no key {shown(key_id)} in {path}; `keys list` shows those that there are")
    return found


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _unreadable(path: Path, error: OSError) -> KeysUnusable:
    return KeysUnusable(f"cannot read the keys file {path}: {error.strerror}; --keys-file or tenants.keys_file names another")


def _no_file(path: Path) -> KeysUnusable:
    return KeysUnusable(f"there is no keys file {path}: `keys create` makes it; --keys-file or --data-dir names another")
