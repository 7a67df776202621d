"""What is known of a store's time zone before the engine is loaded. (With the engine: tests/integration/clickhouse.)"""

import os
from pathlib import Path

import pytest

from collector.store import time_zone
from collector.store.contract import StoreUnavailable
from collector.store.options import RequestedTables, StoreOptions
from collector.store.sessions import embedded_sessions

EAST = "Pacific/Kiritimati"


@pytest.fixture(autouse=True)
def zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as before when a test has ended."""
    monkeypatch.setenv("TZ", EAST)


def test_a_new_store_has_utc(tmp_path: Path) -> None:
    assert time_zone.choose(tmp_path)
    assert "UTC" == os.environ["TZ"]
    assert "UTC\n" == (tmp_path / time_zone.FILE).read_text()


@pytest.mark.parametrize("left", [None, "", "\n"])
def test_a_note_that_was_never_written_is_none(tmp_path: Path, left: str | None) -> None:
    """The store goes on with the machine's zone, and that is kept once the engine has said what it is."""
    (tmp_path / "metadata").mkdir()
    if left is not None:
        (tmp_path / time_zone.FILE).write_text(left)
    assert not time_zone.choose(tmp_path)
    assert EAST == os.environ["TZ"]
    time_zone.note(tmp_path, lambda: "Asia/Kolkata")
    assert time_zone.choose(tmp_path)
    assert "Asia/Kolkata" == os.environ["TZ"]


def test_a_damaged_note_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine does not load with a zone that it does not know."""

    def load_engine(threads_max: int) -> None:
        raise ImportError(f"Cannot load time zone {os.environ['TZ']}")

    monkeypatch.setattr("collector.store.sessions.load_engine", load_engine)
    (tmp_path / time_zone.FILE).write_text("TC\n")
    with pytest.raises(StoreUnavailable, match=r"Cannot load time zone TC; its time zone is in .*/time_zone"):
        embedded_sessions(tmp_path, StoreOptions(RequestedTables(fsync=False)))
