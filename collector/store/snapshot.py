"""Makes a snapshot of the embedded engine's files, in a directory that the engine can open.

The parts of a table never change, so ClickHouse's FREEZE links them. The other files are small and are copied: the definitions
of the tables, and the tokens of inserts. ClickHouse's BACKUP is not used, since it needs a setting that the engine lacks.

Invariants:
1. Nothing is inserted during a snapshot, so the copied tokens are those of the parts (collector/app/backup.py).
2. Linked files do not change, whatever the engine does with its own (test_a_backup_under_load).
"""

import os
import shutil
from pathlib import Path
from typing import Final

# Directories of a table that are not its parts. Detached parts are not copied, since they are no data.
_TOKENS: Final = "deduplication_logs"
_ASIDE: Final = "detached"
_TABLE_FILE: Final = "format_version.txt"
_SHADOW: Final = "shadow"
_LEFT_OUT: Final = frozenset([_SHADOW, "tmp"])


def take(store: Path, name: str, target: Path) -> None:
    """Make the directory `target` from the store's directory. The parts that are frozen under `name` are moved there. Raises
    OSError."""
    _copy(store, target, _LEFT_OUT)
    frozen = store / _SHADOW / name
    for part in frozen.glob("store/*/*/*"):
        part.rename(target / part.relative_to(frozen))
    remove_frozen(store, name)


def remove_frozen(store: Path, name: str) -> None:
    """Remove the parts frozen under `name`. Raises OSError."""
    if (frozen := store / _SHADOW / name).exists():
        shutil.rmtree(frozen)


def _copy(source: Path, target: Path, left_out: frozenset[str] = frozenset()) -> None:
    target.mkdir(mode=0o700)
    is_table = (source / _TABLE_FILE).exists()
    with os.scandir(source) as entries:
        for entry in entries:
            copied = target / entry.name
            if entry.name in left_out:
                continue
            if entry.is_symlink():
                copied.symlink_to(Path(entry.path).readlink())
            elif not entry.is_dir():
                shutil.copy2(entry.path, copied)
            elif entry.name == _ASIDE and is_table:
                copied.mkdir(mode=0o700)
            elif not is_table or entry.name == _TOKENS:
                _copy(Path(entry.path), copied)
