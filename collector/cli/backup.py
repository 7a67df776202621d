"""The commands backup and restore, for a data directory. A backup may be made while a collector runs."""

from pathlib import Path
from typing import Annotated

import typer

from collector.cli.common import Config, DataDir, failures, load_settings, print_text


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The directory to create for the backup.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Back up the log, the store and the keys.

    The collector may run meanwhile. The backup contains everything that was acknowledged before it began.
    """
    settings = load_settings(config, {"data_dir": data_dir}).settings
    from collector.app import backup as app  # noqa: PLC0415  # the engine: a second that others need not wait

    with failures():
        done = app.backup(settings, target)
    print_text(f"backed up {done.files:,} files, {done.size_bytes:,} bytes; the writer paused for {done.paused_s:.2f} s")


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A directory that `backup` created.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Restore a backup into an empty data directory.

    Every file of the backup is checked first.
    """
    settings = load_settings(config, {"data_dir": data_dir}).settings
    from collector.app import backup as app  # noqa: PLC0415  # as in backup

    with failures():
        done = app.restore(settings, source)
    print_text(f"restored {done.files:,} files, {done.size_bytes:,} bytes, into {settings.data_dir}")
