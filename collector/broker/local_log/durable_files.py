"""Copies and links of the log's files, which outlive a power cut."""

import os
import shutil
from pathlib import Path

from collector.broker.local_log.witness import sync_directory


def size_of(file: Path) -> int:
    """Return the number of bytes of a file; 0 if there is no file."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def copy_in_place(link: Path) -> None:
    """Replace a link by a copy, durably, so that writes under the other name no longer change it."""
    copy = link.with_name(f"{link.name}-copy")
    shutil.copyfile(link, copy)
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    copy.rename(link)
    sync_directory(link.parent)


def link(file: Path, link: Path) -> None:
    """Give a file another name, under which its content is found after the first name is removed."""
    try:
        os.link(file, link)
    except OSError:  # a file system without links
        shutil.copyfile(file, link)
