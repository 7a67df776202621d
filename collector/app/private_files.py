"""Keeps the data directory private: files get mode 0600 and directories 0700, also if they had another mode before.

Invariants:
1. While the data directory is in use, only its owner has rights on the files that this process makes. This includes the files
   of the engine and of SQLite. (test_files_of_the_log_and_the_store_are_private)
2. At the start, the rights of other users on existing files are removed, and a warning has the number of these files. If the
   rights on some files cannot be removed, a warning names the first.
   (test_what_was_open_is_closed_and_named, test_what_cannot_be_closed_is_named)
3. Links are neither followed nor changed. (test_links_are_not_followed)
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

_OTHERS: Final = 0o077
# Rights are removed from the innermost directories outwards. So if no entry down to this level is open, no deeper one is.
_DEPTH_LOOKED_AT: Final = 2

log = structlog.get_logger(__name__)


@contextmanager
def private_files() -> Iterator[None]:
    """Let this process make files with mode 0600 and directories with 0700 inside this context, in all threads."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def make_private(directory: Path) -> None:
    """Remove the rights of other users on the directory and everything in it. Log a warning if they had any. Raises OSError."""
    if not _is_open(directory, _DEPTH_LOOKED_AT):
        return
    mode = stat.S_IMODE(directory.stat().st_mode)
    closed, failed = 0, ""
    for place, _, names in os.walk(directory, topdown=False):
        for path in (*(os.path.join(place, name) for name in names), place):  # noqa: PTH118 - there may be a million of them
            try:
                closed += _close(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed = failed or f"{path}: {error.strerror}"
    if closed:
        log.warning(
            "other users could read or change files in the data directory; now only its owner can",
            data_dir=str(directory),
            mode_before=f"{mode:04o}",
            entries_closed=closed,
        )
    if failed:
        log.warning(
            "other users can read or change files in the data directory, and this process may not forbid it: chmod -R go= as"
            " the owner does",
            data_dir=str(directory),
            first=failed,
        )


def _is_open(directory: str | Path, depth: int) -> bool:
    """Return whether other users have rights on the directory, or on its entries down to `depth` levels. Raises OSError."""
    if stat.S_IMODE(os.stat(directory).st_mode) & _OTHERS:  # noqa: PTH116 - `directory` may be a str
        return True
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            if entry.stat(follow_symlinks=False).st_mode & _OTHERS:
                return True
            if depth > 1 and entry.is_dir(follow_symlinks=False) and _is_open(entry.path, depth - 1):
                return True
    return False


def _close(path: str) -> int:
    """Remove the rights of other users on a path. Return 1 if they had any, else 0. Raises OSError."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return 0
    os.chmod(path, stat.S_IMODE(mode) & ~_OTHERS)  # noqa: PTH101 - as above
    return 1
