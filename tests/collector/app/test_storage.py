"""The broker and the store, from the settings."""

import asyncio
import shutil
from pathlib import Path

import pytest
import structlog

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


def test_a_log_that_began_anew_beside_a_store_is_said(tmp_path: Path) -> None:
    """At each start where the log's file was made just now and the store was not; not at the first start, nor at the next."""
    settings = Settings(data_dir=tmp_path)

    async def open_it() -> list[str]:
        with structlog.testing.capture_logs() as logs:
            async with storage._open_local(settings):
                pass
        return [line["log_level"] for line in logs if "began anew" in line["event"]]

    said = [asyncio.run(open_it())]
    (tmp_path / "store").mkdir()
    said.append(asyncio.run(open_it()))
    shutil.rmtree(tmp_path / "log")
    said += [asyncio.run(open_it()), asyncio.run(open_it())]
    assert [[], [], ["warning"], []] == said
