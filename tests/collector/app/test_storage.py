"""The broker and the store, from the settings."""

import asyncio
from pathlib import Path

import pytest

from collector.app import storage
from collector.config import Settings
from collector.errors import CannotRun
from collector.metrics import Metrics


def test_a_log_that_is_not_ours_is_named(tmp_path: Path) -> None:
    """What lies in the log's place is left alone, and told."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "messages.sqlite").write_bytes(b"not a database, but long enough to have a header" * 40)

    async def open_it() -> None:
        async with storage.open_storage(Settings(data_dir=tmp_path), Metrics()):
            pass

    with pytest.raises(CannotRun, match=r"cannot open the local log .*messages\.sqlite"):
        asyncio.run(open_it())
    assert (tmp_path / "log" / "messages.sqlite").read_bytes().startswith(b"not a database")
