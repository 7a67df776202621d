"""The broker and the store, from the settings."""

import asyncio
import shutil
from pathlib import Path
from typing import cast

import pytest
import structlog

from collector.app import storage
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.store.clickhouse import ClickHouseStore
from collector.telemetry.metrics import Metrics


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
    """At each start where the log was made just now and the store has data; not beside empty tables, nor at the next start."""

    def start(answer: bytes) -> list[str]:
        class Store:
            def read(self, sql: str, format_: str) -> bytes:
                return answer

        async def opened() -> None:
            async with storage._open_local(Settings(data_dir=tmp_path)) as opened:
                storage._report_new_log(opened.broker, cast("ClickHouseStore", Store()))

        with structlog.testing.capture_logs() as logs:
            asyncio.run(opened())
        return [line["log_level"] for line in logs if "began anew" in line["event"]]

    said = [start(b""), start(b"1\n")]
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "log.acknowledged").unlink()
    said += [start(b"1\n"), start(b"1\n")]
    assert [[], [], ["warning"], []] == said
