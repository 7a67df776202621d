"""The broker and the store, from the settings."""

import asyncio
import errno
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest
import structlog
from support.waiting import eventually

from collector.api import query_client
from collector.app import data_dir, storage
from collector.broker.contract import LOGS_TOPIC
from collector.broker.local_log import LocalLog, LogStart
from collector.broker.local_log.lineage import PartitionStart
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import DataDirLock, Locked
from collector.runtime.shutdown import GracefulShutdown
from collector.store.clickhouse import ClickHouseStore
from collector.telemetry.metrics import Metrics


def test_a_log_that_is_not_ours_is_named(tmp_path: Path) -> None:
    """What lies in the log's place is left alone, and reported."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "messages.sqlite").write_bytes(b"not a database, but long enough to have a header" * 40)

    async def open_it() -> None:
        async with storage.open_storage(Settings(data_dir=tmp_path), Metrics(), "test"):
            pass

    with pytest.raises(CannotRun, match=r"cannot open the local log .*messages\.sqlite"):
        asyncio.run(open_it())
    assert (tmp_path / "log" / "messages.sqlite").read_bytes().startswith(b"not a database")


def test_a_log_that_began_anew_beside_a_store_is_said(tmp_path: Path) -> None:
    """It is reported at each start if the log is new and the store has data, and not beside empty tables or later."""

    def start(answer: bytes) -> list[str]:
        class Store:
            def read(self, sql: str, format_: str) -> bytes:
                return answer

        async def opened() -> None:
            async with storage._open_local(Settings(data_dir=tmp_path)) as opened:
                storage._report_new_log(opened.broker, cast("ClickHouseStore", Store()))

        with structlog.testing.capture_logs() as logs:
            asyncio.run(opened())
        return [line["log_level"] for line in logs if " is new, but " in line["event"]]

    said = [start(b""), start(b"1\n")]
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "log.acknowledged").unlink()
    said += [start(b"1\n"), start(b"1\n")]
    assert [[], [], ["warning"], []] == said


def test_what_an_older_copy_lacks_is_reported_before_it_is_known(tmp_path: Path) -> None:
    """A start whose report can't be written, on a full disk, notes nothing: the next one reports it."""
    starts = [LogStart(f"{number:016x}", {LOGS_TOPIC: PartitionStart(number, number)}) for number in range(3)]

    class Log:
        identity = "log"

        def __init__(self, starts: list[LogStart], *, is_full: bool = False) -> None:
            self.starts = starts
            self.is_full = is_full
            self.lacking: dict[str, tuple[int, int]] = {}

        def stored_beside(self, has: object) -> None:
            """Nothing was reported yet."""

        def lacking_in_store(self, lacking: Mapping[str, tuple[int, int]]) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.lacking = dict(lacking)
            return sum(end - start for start, end in lacking.values())

    def start(log: Log) -> list[str]:
        with structlog.testing.capture_logs() as logs:
            storage._report_old_store(cast("LocalLog", log), tmp_path)
        return [line["log_level"] for line in logs]

    assert [] == start(Log(starts[:1]))
    assert ["warning"] == start(Log(starts, is_full=True))
    log = Log(starts)
    assert ["error"] == start(log)
    assert {LOGS_TOPIC: (1, 2)} == log.lacking
    assert [] == start(Log(starts))


class Stopping:
    """Asked to stop, or not."""

    def __init__(self) -> None:
        self.is_asked = False


@contextmanager
def listening(directory: Path) -> Iterator[None]:
    """A query socket, as of a collector that runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, query_client.socket_address(directory) as address:
        listener.bind(address)
        listener.listen()
        yield
    (directory / query_client.SOCKET).unlink()


async def enter(directory: Path, wait_s: float = 20, stopping: Stopping | None = None) -> None:
    """Wait as a collector that starts does, and leave the directory."""
    settings = Settings(data_dir=directory, data_dir_wait_s=wait_s)
    with ExitStack() as stack:
        await storage._enter_when_free(stack, settings, cast("GracefulShutdown", stopping or Stopping()))


async def test_a_start_waits_for_a_command(tmp_path: Path) -> None:
    """It says so once, and goes on as soon as the command has ended."""
    command = DataDirLock(tmp_path, "audit")
    with structlog.testing.capture_logs() as logs:
        entering = asyncio.create_task(enter(tmp_path))
        await eventually(lambda: bool(logs))
        await asyncio.sleep(3 * data_dir.LOOK_S)
        assert not entering.done()
        command.release()
        await entering
    assert [("warning", "the data directory is in use: waiting for it")] == [(it["log_level"], it["event"]) for it in logs]
    assert "(the command audit)" in logs[0]["reason"]


async def test_a_start_waits_so_long_and_no_longer(tmp_path: Path) -> None:
    """Then it names the command, and what to do."""
    named = r"\(the command audit\), still after 0\.2 s \(data_dir_wait_s\): wait until it has ended, or end it"
    with DataDirLock(tmp_path, "audit"), pytest.raises(CannotRun, match=named):
        await enter(tmp_path, wait_s=0.2)


async def test_a_start_does_not_wait_for_another_collector(tmp_path: Path) -> None:
    """One that listens is refused at once, also where the file still names a command, as the other has just taken the lock."""
    for stale in ("", "7", "7 audit"):
        with DataDirLock(tmp_path), listening(tmp_path):
            (tmp_path / "lock").write_text(stale)
            with pytest.raises(Locked, match="in use by"):
                async with asyncio.timeout(10):
                    await enter(tmp_path, wait_s=60)


async def test_a_start_waits_for_a_collector_that_starts_or_ends(tmp_path: Path) -> None:
    """A collector that does not listen is waited for until it has ended. One that listens refuses the start."""
    ending = DataDirLock(tmp_path)
    with structlog.testing.capture_logs() as logs:
        entering = asyncio.create_task(enter(tmp_path, wait_s=60))
        await eventually(lambda: bool(logs))
        ending.release()
        await entering
    with DataDirLock(tmp_path), structlog.testing.capture_logs() as logs:
        entering = asyncio.create_task(enter(tmp_path, wait_s=60))
        await eventually(lambda: bool(logs))
        with listening(tmp_path), pytest.raises(Locked):
            await entering


async def test_a_start_that_waits_can_be_stopped(tmp_path: Path) -> None:
    stopping = Stopping()
    with DataDirLock(tmp_path, "audit"):
        entering = asyncio.create_task(enter(tmp_path, stopping=stopping))
        await asyncio.sleep(0)
        stopping.is_asked = True
        with pytest.raises(storage.StoppedWaiting):
            await entering
