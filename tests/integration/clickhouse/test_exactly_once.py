"""Killed at any moment, the writer stores every item, receipt and dead letter once, in every table."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import store_writer
from support.processes.commands import environment
from support.store_ranges import wrong_counts

KILLS = int(os.environ.get("INFRASAGE_TEST_KILLS", "3"))
_START_MAX_S = 300  # a busy machine; a writer that hangs is what it finds


def progress(directory: Path) -> str:
    path = directory / "progress"
    return path.read_text() if path.exists() else ""


def run_and_kill(directory: Path, outlives_s: float, seconds: float) -> None:
    """One life of the writer, ended by SIGKILL so many seconds after it has got to work."""
    before = progress(directory)
    with (directory / "errors").open("ab") as errors:
        program = [sys.executable, store_writer.__file__, str(directory), str(outlives_s)]
        writer = subprocess.Popen(program, env=environment(), stderr=errors, stdout=errors)
        try:
            deadline = time.monotonic() + _START_MAX_S
            while progress(directory) == before:
                assert writer.poll() is None, (directory / "errors").read_text()
                assert time.monotonic() < deadline, f"nothing written within {_START_MAX_S} s"
                time.sleep(0.01)
            time.sleep(seconds)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()


async def finish(directory: Path) -> list[str]:
    """Store the range that is in doubt. Return what the store has otherwise than once."""
    number, in_doubt = store_writer.read_progress(directory)
    last = number + in_doubt
    store = store_writer.open_store(directory)
    try:
        writer = store_writer.writer(store, store_writer.NumberedRanges(directory, last))
        running = asyncio.create_task(writer.run())
        assert await writer.drained(_START_MAX_S)
        writer.stop()
        await running
        return wrong_counts(store, range(last))
    finally:
        store.close()


@pytest.mark.parametrize("outlives_s", [0, 5], ids=["ended", "outlives"])
def test_kill(outlives_s: float, tmp_path: Path) -> None:
    """Killed several times, where its inserts ended with it and where one may go on: nothing is missing, nothing is twice."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for _ in range(KILLS):
        run_and_kill(tmp_path, outlives_s, moments.uniform(0.0, 0.4))
    assert asyncio.run(finish(tmp_path)) == [], f"seed {seed}"
