"""The commands that ask."""

import threading
from pathlib import Path

import pytest

from collector.app import backup, offline_queries, schema
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import DataDirLock


def test_a_query_waits_for_another_command(tmp_path: Path) -> None:
    """It waits as long as the settings say, and then names the command."""
    (tmp_path / "store").mkdir()
    settings = Settings(data_dir=tmp_path, data_dir_wait_s=0.3)
    with (
        DataDirLock(tmp_path, "audit"),
        pytest.raises(CannotRun, match=r"in use by process \d+ \(the command audit\), still after 0\.3 s \(data_dir_wait_s\)"),
    ):
        offline_queries.query_offline(settings, "SELECT 1", "CSV")


def test_a_query_while_somebody_silent_holds_the_data(tmp_path: Path) -> None:
    """A collector that is starting gets time to answer; after that, the message names the process."""
    (tmp_path / "store").mkdir()
    with (
        DataDirLock(tmp_path),
        pytest.raises(CannotRun, match=r"in use by process \d+, which does not answer at .*query\.sock, still after 0\.3 s"),
    ):
        offline_queries.query_offline(Settings(data_dir=tmp_path, data_dir_wait_s=0.3), "SELECT 1", "CSV")


def test_every_command_waits_for_who_starts_or_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that change the store or put one in its place too; `restore` has read its manifest by then."""
    settings = Settings(data_dir=tmp_path, data_dir_wait_s=0.3)
    monkeypatch.setattr(backup, "_read_manifest", lambda _: {})
    for command in (lambda: schema.apply(settings), lambda: backup.restore(settings, tmp_path / "backup")):
        for holder, named in (("audit", r"\(the command audit\), still after"), ("", "which does not answer at")):
            with DataDirLock(tmp_path, holder), pytest.raises(CannotRun, match=named):
                command()


def test_schema_apply_goes_on_after_who_ends(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    ending = DataDirLock(tmp_path)
    timer = threading.Timer(0.5, ending.release)
    timer.start()
    try:
        assert "applied" in schema.apply(settings)
    finally:
        timer.join()
