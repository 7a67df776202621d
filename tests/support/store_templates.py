"""Stores that have their tables: made once in a run of tests, and copied by each test that begins with one.

Making all tables takes the engine more than two seconds of CPU, a copy a tenth of a second. Tests of how tables are made begin
with an empty directory instead.
"""

import atexit
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes.commands import command, environment

_VARIABLE = "TEST_STORE_TEMPLATES"


def keep_for_this_run(config: pytest.Config) -> None:
    """Make the place of the templates, for all processes of this run of tests; it is gone in the end."""
    config.add_cleanup(_make_place())


def _make_place() -> Callable[[], None]:
    """Make the place of the templates, and return what removes it."""
    place = tempfile.mkdtemp(prefix="infrasage-stores-")
    os.environ[_VARIABLE] = place
    return lambda: shutil.rmtree(place, ignore_errors=True)


def copy_store(directory: Path, *, fsync: bool = True) -> None:
    """Make an embedded store of a directory that is not there yet, with the tables of the default settings but for `fsync`."""

    def make(template: Path) -> None:
        # One engine a process, and this one may have another store open.
        subprocess.run(command("support.processes.table_maker", template, int(fsync)), env=environment(), check=True)

    copy_template("fsync" if fsync else "plain", make, directory)


def copy_template(name: str, make: Callable[[Path], None], directory: Path) -> None:
    """Make `directory` a copy of the template of this name; `make` makes it the first time."""
    if _VARIABLE not in os.environ:  # a benchmark, not a test
        atexit.register(_make_place())
    place = Path(os.environ[_VARIABLE])
    template = place / name
    with (place / f"{name}.lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            unfinished = place / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(template)
    shutil.copytree(template, directory, symlinks=True)
