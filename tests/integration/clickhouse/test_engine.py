"""The embedded engine's pools are bounded. In processes of their own, since each loads the engine once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes.commands import environment

# Runs one query on 48 threads, then prints how many threads and descriptors are left when no more end.
BURST = """
import json, os, sys, time
from pathlib import Path
from collector.store.engine import load_engine
if sys.argv[1] != "0":
    load_engine(int(sys.argv[1]))
import clickhouse_connect

def state():
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[2])
client.query("SELECT 1")
before = state()
client.query("SELECT sum(number) FROM numbers_mt(50000000) SETTINGS max_threads = 48, max_rows_to_read = 0")
after = state()
for _ in range(40):
    time.sleep(0.05)
    after = min(after, state())
print(json.dumps([before, after]))
os._exit(0)
"""


# Prints a table as the query command gets it.
TABLE = """
import os, sys
from pathlib import Path
from collector.store.clickhouse import ClickHouseStore
store = ClickHouseStore.embedded(Path(sys.argv[1]) / "store")
store.apply_schema()
(Path(sys.argv[1]) / "table").write_bytes(store.query("SELECT 1 AS a, NULL AS b", "PrettyCompactMonoBlock"))
os._exit(0)
"""


def test_a_table_has_no_colours_whatever_the_collectors_terminal_is(tmp_path: Path) -> None:
    """The engine's own output is a terminal; the client of the query may write to a file."""
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", TABLE, str(tmp_path)],
            env=environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            check=True,
            timeout=100,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    table = (tmp_path / "table").read_bytes()
    assert "│ 1 │".encode() in table
    assert b"\x1b" not in table


def grown(threads_max: int, place: Path) -> tuple[int, int]:
    """Return by how many threads and descriptors the process has grown for good."""
    command = [sys.executable, "-c", BURST, str(threads_max), str(place)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=100)
    (threads, files), (threads_after, files_after) = json.loads(done.stdout)
    return threads_after - threads, files_after - files


@pytest.mark.parametrize("threads_max", [1, 8])
def test_idle_threads_of_the_engine_end(threads_max: int, tmp_path: Path) -> None:
    """After a query on 48 threads, at most as many idle ones are left as the setting allows, with three files each."""
    threads, files = grown(threads_max, tmp_path)
    assert threads <= threads_max
    assert files <= 3 * threads_max


def test_without_bounds_the_engine_keeps_its_threads(tmp_path: Path) -> None:
    """What the bounds are for: where this fails, the engine has changed, and collector/store/engine.py may go."""
    threads, files = grown(0, tmp_path)
    assert threads > 10
    assert files > 30
