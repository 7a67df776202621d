"""`schema apply` under load: the applying process, the writing process and the server are killed at random moments.

The server is the tests' bridge over the embedded engine. KILLS kills in turn; more with INFRASAGE_TEST_KILLS.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.processes import schema_applier, store_writer
from support.processes.clickhouse_server import OPTIONS, Bridge, bridge
from support.processes.commands import environment
from support.store_ranges import wrong_counts
from support.waiting import until

from collector.store.clickhouse import ClickHouseStore

KILLS = int(os.environ.get("INFRASAGE_TEST_KILLS", "3"))
_START_MAX_S = 120
# Parts whose rows have a TTL that they do not know of.
PARTS_WITHOUT_TTL = (
    "SELECT table, name FROM system.parts WHERE active AND rows > 0 AND database = currentDatabase()"
    " AND table IN ('otel_logs', 'otel_traces', 'otel_traces_trace_id_ts') AND delete_ttl_info_max = 0"
)


class Life:
    """A program that is started again after each kill. It has got to work once it has written more to its file."""

    def __init__(self, directory: Path, name: str, *arguments: object) -> None:
        self._arguments = [sys.executable, *map(str, arguments)]
        self._output = directory / f"{name}.out"
        self._errors = directory / f"{name}.err"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._output.open("ab") as output, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(self._arguments, env=environment(), stdout=output, stderr=errors)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def lines(self) -> int:
        self.check()
        return self._output.read_bytes().count(b"\n")

    def check(self) -> None:
        assert self._process is None or self._process.poll() is None, self._errors.read_text()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Bridge]:
    with bridge(tmp_path / "server") as made:
        yield made


async def finish(store: ClickHouseStore, directory: Path) -> int:
    """Store the range that is in doubt. Return how many ranges are acknowledged."""
    number, in_doubt = store_writer.read_progress(directory)
    last = number + in_doubt
    writer = store_writer.writer(store, store_writer.NumberedRanges(directory, last))
    running = asyncio.create_task(writer.run())
    assert await writer.drained(_START_MAX_S)
    writer.stop()
    await running
    return last


def test_kill(there: Bridge, tmp_path: Path) -> None:
    """Every acknowledged row is there once, in every table; then the plan is carried out, and is empty."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    writer = Life(tmp_path, "writer", store_writer.__file__, tmp_path, 0, there.url)
    applier = Life(tmp_path, "applier", schema_applier.__file__, there.url)

    def written() -> int:
        writer.check()
        return store_writer.read_progress(tmp_path)[0]

    def both_at_work() -> None:
        """A range was stored, and a change of the tables begun, since the call."""
        before, ranges = applier.lines(), written()
        until(lambda: written() > ranges and applier.lines() > before, _START_MAX_S)

    def kill_writer() -> None:
        writer.kill()
        until(lambda: not there.is_busy(), _START_MAX_S)  # its insert has ended when its successor looks
        writer.start()

    def kill_applier() -> None:
        applier.kill()
        applier.start()

    def kill_server() -> None:
        there.kill()
        there.start()

    kills: list[Callable[[], None]] = [kill_server, kill_applier, kill_writer]
    try:
        writer.start()
        applier.start()
        for number in range(KILLS):
            both_at_work()
            time.sleep(moments.uniform(0.0, 0.4))
            kills[number % len(kills)]()
        both_at_work()
    finally:
        applier.kill()
        writer.kill()
    until(lambda: not there.is_busy(), _START_MAX_S)
    with closing(there.store(OPTIONS._replace(tables=schema_applier.WANTED[1]))) as store:
        store.apply_schema()
        ranges = asyncio.run(finish(store, tmp_path))
        assert (ranges > KILLS, wrong_counts(store, range(ranges))) == (True, []), f"seed {seed}"
        assert store.schema_plan() == ((), ())
        until(lambda: store.read(PARTS_WITHOUT_TTL, "TSV") == b"", _START_MAX_S)
