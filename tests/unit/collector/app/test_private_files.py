"""What is in the data directory is its owner's alone."""

import asyncio
import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support import batches
from support.records import encoded

from collector.app.data_dir import locked_data_dir
from collector.app.private_files import make_private
from collector.app.storage import open_storage
from collector.broker.contract import METRICS_TOPIC, Message
from collector.config.settings import Settings
from collector.telemetry.metrics import Metrics


def modes(directory: Path) -> dict[str, int]:
    """By path below it; "" is the directory."""
    found = {"": stat.S_IMODE(directory.stat().st_mode)}
    for place, directories, names in os.walk(directory):
        for name in (*directories, *names):
            path = Path(place, name)
            if not path.is_symlink():
                found[str(path.relative_to(directory))] = stat.S_IMODE(path.stat().st_mode)
    return found


def test_files_of_the_log_and_the_store_are_private(tmp_path: Path) -> None:
    """SQLite's file, -wal and -shm and the engine's parts are, also in a directory that was made with other rights."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o755)

    async def use() -> dict[str, int]:
        async with open_storage(Settings(data_dir=data_dir), Metrics(), "test") as storage:
            payload = encoded(batches.gauge(1, 5))
            await storage.broker.append([Message(METRICS_TOPIC, payload)])
            await asyncio.to_thread(storage.store.insert, METRICS_TOPIC, [payload], "token")
            return modes(data_dir)

    before = os.umask(0o022)
    try:
        found = asyncio.run(use())
        assert os.umask(0o022) == 0o022, "the process has its own umask back"
    finally:
        os.umask(before)
    assert any(path.endswith("-wal") for path in found)
    assert any(path.startswith("store/") and path.endswith(".bin") for path in found)
    assert {path: f"{mode:04o}" for path, mode in found.items() if mode & 0o077} == {}


def test_what_was_open_is_closed_and_named(tmp_path: Path) -> None:
    """It is named once, with its former rights. A directory that is private already causes no warning."""
    data_dir = tmp_path / "data"
    (data_dir / "store" / "deep" / "deeper").mkdir(parents=True)
    (data_dir / "store" / "deep" / "deeper" / "part.bin").write_bytes(b"x")
    (data_dir / "keys.json").write_text("{}")
    for path, mode in (("", 0o755), ("store", 0o770), ("store/deep/deeper/part.bin", 0o646), ("keys.json", 0o640)):
        (data_dir / path).chmod(mode)
    with capture_logs() as first, locked_data_dir(Settings(data_dir=data_dir), is_needed=True, command=""):
        assert {"lock": 0o600, "": 0o700} == {name: mode for name, mode in modes(data_dir).items() if name in ("lock", "")}
    assert {path: f"{mode:04o}" for path, mode in modes(data_dir).items() if mode & 0o077} == {}
    assert modes(data_dir)["store/deep/deeper/part.bin"] == 0o600
    (warning,) = first
    assert (warning["log_level"], warning["data_dir"], warning["mode_before"]) == ("warning", str(data_dir), "0755")
    with capture_logs() as second, locked_data_dir(Settings(data_dir=data_dir), is_needed=True, command=""):
        pass
    assert [] == second


def test_an_open_file_alone_is_found(tmp_path: Path) -> None:
    """The directory is private, as `serve` has always made it, and a directory of the store is not."""
    (tmp_path / "store").mkdir()
    part = tmp_path / "store" / "part.bin"
    part.write_bytes(b"x")
    tmp_path.chmod(0o700)
    (tmp_path / "store").chmod(0o700)
    part.chmod(0o644)
    make_private(tmp_path)
    assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_links_are_not_followed(tmp_path: Path) -> None:
    """What a link in the directory leads to belongs to somebody else."""
    data_dir, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data_dir.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"x")
    (data_dir / "directory").symlink_to(elsewhere)
    (data_dir / "file").symlink_to(elsewhere / "file")
    for path, mode in ((elsewhere, 0o755), (elsewhere / "file", 0o644), (data_dir, 0o755)):
        path.chmod(mode)
    make_private(data_dir)
    assert {"": 0o755, "file": 0o644} == modes(elsewhere)
    assert {"": 0o700} == modes(data_dir)


def test_what_cannot_be_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user is named, and the rest is closed all the same."""
    for name in ("another's", "ours"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o700)
    chmod = os.chmod

    def refusing(path: str, mode: int) -> None:
        if path.endswith("another's"):
            raise PermissionError(1, "Operation not permitted", path)
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", refusing)  # who is root may do everything
    with capture_logs() as logged:
        make_private(tmp_path)
    assert {"": 0o700, "another's": 0o644, "ours": 0o600} == modes(tmp_path)
    assert [f"{tmp_path}/another's: Operation not permitted"] == [entry["first"] for entry in logged if "first" in entry]
