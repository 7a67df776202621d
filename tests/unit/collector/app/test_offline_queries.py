"""The commands that ask."""

from pathlib import Path

import pytest

from collector.app import data_dir, offline_queries
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import DataDirLock


def test_a_query_waits_for_another_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the settings say, not as long as a collector may take to start; then it names the command."""
    monkeypatch.setattr(data_dir, "STARTING_MAX_S", 0.0)
    (tmp_path / "store").mkdir()
    settings = Settings(data_dir=tmp_path, data_dir_wait_s=0.3)
    with (
        DataDirLock(tmp_path, "audit"),
        pytest.raises(CannotRun, match=r"in use by process \d+ \(the command audit\), still after 0\.3 s \(data_dir_wait_s\)"),
    ):
        offline_queries.query_offline(settings, "SELECT 1", "CSV")


def test_a_query_while_somebody_silent_holds_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is starting gets time to answer; after that, the message names the process."""
    monkeypatch.setattr(data_dir, "STARTING_MAX_S", 0.3)
    (tmp_path / "store").mkdir()
    with (
        DataDirLock(tmp_path),
        pytest.raises(CannotRun, match=r"in use by process \d+, which does not answer at .*query\.sock$"),
    ):
        offline_queries.query_offline(Settings(data_dir=tmp_path), "SELECT 1", "CSV")
