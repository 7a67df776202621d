"""The reserve of a disk: its size, when it is reached, and the warning."""

from pathlib import Path

import pytest
import structlog

from collector.runtime.disk import Disk, Space, measure

MIB = 1024 * 1024
GIB = 1024 * MIB


class Stub:
    """A disk of a size, and a clock."""

    def __init__(self, total: int, free: int) -> None:
        self.space = Space(free, total)
        self.now = 0.0
        self.fails = False

    def measured(self, directory: Path) -> Space:
        if self.fails:
            raise OSError(5, "Input/output error")
        return self.space

    def disk(self) -> Disk:
        return Disk(Path("/data"), 10, 512 * MIB, 16 * GIB, measured=self.measured, clock=lambda: self.now)


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(48 * MIB, 24 * MIB), (GIB, 512 * MIB), (4 * GIB, 512 * MIB), (100 * GIB, 10 * GIB), (1000 * GIB, 16 * GIB)],
)
def test_the_reserve_is_a_part_of_the_disk(total: int, reserve: int) -> None:
    """10 percent and 512 MiB at least, but of a small disk no more than half."""
    stub = Stub(total, reserve - 1)
    disk = stub.disk()
    disk.check()
    assert (reserve, True) == (disk.reserve_bytes, disk.is_low)
    assert f"{reserve - 1} bytes free, and {reserve} are reserved for the store" in str(disk.shortage)


def test_a_disk_is_low_until_it_has_some_more() -> None:
    """So it does not change with every request."""
    stub = Stub(100 * GIB, 10 * GIB)
    disk = stub.disk()
    seen = []
    for free in (10 * GIB, 10 * GIB - 1, 10 * GIB, 10 * GIB + 512 * MIB - 1, 10 * GIB + 512 * MIB, 10 * GIB):
        stub.space = Space(free, 100 * GIB)
        disk.check()
        seen.append(disk.is_low)
    assert [False, True, True, True, False, False] == seen


def test_a_low_disk_is_said_once_a_minute() -> None:
    stub = Stub(100 * GIB, GIB)
    disk = stub.disk()
    with structlog.testing.capture_logs() as logs:
        for now in (0, 1, 59, 60, 61, 200):
            stub.now = now
            disk.check()
    assert ["warning"] * 3 == [line["log_level"] for line in logs]
    assert {GIB} == {line["free_bytes"] for line in logs}


def test_a_disk_that_cannot_be_measured_changes_nothing() -> None:
    stub = Stub(100 * GIB, GIB)
    disk = stub.disk()
    disk.check()
    stub.fails = True
    disk.check()
    assert (None, True) == (disk.free_bytes, disk.is_low)


def test_a_file_system_is_measured(tmp_path: Path) -> None:
    space = measure(tmp_path)
    assert 0 < space.free <= space.total


def test_without_a_warning_it_only_looks() -> None:
    """It serves one that asks before each insert, where another reports the disk."""
    stub = Stub(100 * GIB, 100 * GIB)
    disk = Disk(Path("/data"), 10, 512 * MIB, 16 * GIB, warning=None, measured=stub.measured)
    with structlog.testing.capture_logs() as logs:
        answers = [disk.is_low_now()]
        stub.space = Space(1 * GIB, 100 * GIB)
        answers.append(disk.is_low_now())
    assert [False, True] == answers
    assert [] == logs


def test_a_mount_within_has_a_reserve_too() -> None:
    """The log may be on a file system of its own: what counts is the one with the least room beyond its reserve."""
    spaces = {Path("/data"): Space(50 * GIB, 100 * GIB), Path("/data/log"): Space(GIB, 2 * GIB)}
    disk = Disk(Path("/data"), 10, 512 * MIB, 16 * GIB, mounts=[Path("/data/log")], measured=lambda place: spaces[place])
    disk.check()
    assert (False, GIB, 512 * MIB, 2 * GIB) == (disk.is_low, disk.free_bytes, disk.reserve_bytes, disk.size_bytes)
    spaces[Path("/data/log")] = Space(511 * MIB, 2 * GIB)
    with structlog.testing.capture_logs() as logs:
        disk.check()
    assert disk.is_low
    assert "the disk of /data/log has" in str(disk.shortage)
    assert ["/data/log"] == [line["directory"] for line in logs]
    spaces[Path("/data")] = Space(GIB, 100 * GIB)
    disk.check()
    assert "the disk of /data has" in str(disk.shortage)


def test_a_mount_that_is_not_there_is_none(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0, 0, 0, mounts=[tmp_path / "log"])
    disk.check()
    assert disk.free_bytes is not None
