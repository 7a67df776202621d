"""A small file system in memory. Mounting takes root: in CI it must be possible; elsewhere a test is skipped and says so."""

import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.waiting import until


@contextmanager
def small_disk(place: Path, size_mib: int) -> Iterator[Path]:
    """`place` is made, and gone afterwards."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        why = f"cannot mount a small disk: {mounted.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(why)
        warnings.warn(f"NOT TESTED: a full disk; {why}", stacklevel=2)
        pytest.skip(why)
    try:
        yield place
    finally:
        until(lambda: subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0)
