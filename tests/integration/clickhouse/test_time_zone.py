"""The zone of the embedded engine, on machines that have others."""

import subprocess
import sys
import time
from pathlib import Path

from support.processes.commands import environment

from collector.store import time_zone

HOUR = 3600 * 10**9
EAST, WEST = "Pacific/Kiritimati", "Pacific/Pago_Pago"  # 25 hours apart: at no moment do both have the same day

_DO = """
import sys
from pathlib import Path
from collector.store.clickhouse import ClickHouseStore
store = ClickHouseStore.embedded(Path(sys.argv[1]))
store.apply_schema()
for statement in sys.argv[3:]:
    store._command(statement)
print(store.read(sys.argv[2], "TabSeparated").decode(), end="")
store.close()
"""
_WRITE = "INSERT INTO telemetry_batches (TenantId, ReceivedAt, Received) SELECT 'acme', now64(9), 1"
# With numbers, as the audit asks: the engine then looks into the partitions of their days alone.
_READ = (
    "SELECT timezone(), count() FROM telemetry_batches"
    " WHERE ReceivedAt >= fromUnixTimestamp64Nano(toInt64({since})) AND ReceivedAt < fromUnixTimestamp64Nano(toInt64({until}))"
)


def told(store: Path, zone: str, *statements: str) -> list[str]:
    """What a process with that zone reads, after these statements."""
    now = time.time_ns()
    done = subprocess.run(
        [sys.executable, "-c", _DO, str(store), _READ.format(since=now - HOUR, until=now + HOUR), *statements],
        env={**environment(), "TZ": zone},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_rows_are_found_in_every_time_zone(tmp_path: Path) -> None:
    """They are found whatever process stored them."""
    assert ["UTC", "1"] == told(tmp_path / "store", EAST, _WRITE)
    assert ["UTC", "1"] == told(tmp_path / "store", WEST)


def test_a_store_of_an_earlier_version_keeps_its_zone(tmp_path: Path) -> None:
    """It has no note of it, and its partitions are those of the machine's days."""
    store = tmp_path / "store"
    told(store, EAST)
    (store / time_zone.FILE).unlink()
    assert [EAST, "1"] == told(store, EAST, _WRITE)
    assert [EAST, "1"] == told(store, WEST)
