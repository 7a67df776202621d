"""Measures attacks beside an honest client: the cost of each for its sender and for us, and the delay for the client.

    python bench/hostile.py [--only TEXT] [--seconds 2] [--keep]

Needs only the package. `serve` runs with its defaults except for the bytes in flight. An honest client sends a log record every
5 ms over its own connection, first without an attack and then beside it. Each attack is one request, which is sent again as
soon as it is answered, for the given seconds and at least once. An attack "plan Free" has a key of a tenant on that plan; the
honest client has no key.

CPU is given for each request, of the first thread, which has the event loop, and of all threads. Memory is the growth of the
process's maximum. For an attack on a connection (bench/hostile_connections.py), each connection counts as a request. The last
column is the honest client's 99th percentile beside the attack, relative to that without it.
"""

import argparse
import http.client
import multiprocessing as mp
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import pytest
from support.attacks import LOGS, PROTOBUF, REFUSED, REPAIRED, Attack, collector_batch, honest_logs, small_logs
from support.processes.program import Program, started

from bench import measuring, tables
from bench.hostile_connections import ATTACKS, FREE_KEY, Connecting, ConnectionAttack
from bench.measuring import cpu_seconds, memory_mib, percentile_ms
from collector.tenancy import key_format, keys
from collector.tenancy.keys_file import Key, write_entries
from collector.tenancy.scopes import Scope

SUITE: Final = "hostile"
ALONE_S: Final = 2.0
PAUSE_S: Final = 0.005
ANSWER_TIMEOUT_S: Final = 120
LARGEST: Final = 64 << 20
# The attacker and the honest client are one tenant here, and the largest request alone takes the default share of one tenant.
IN_FLIGHT_BYTES_MAX: Final = 1 << 30

# Requests that are refused or accepted, of a tenant whose plan limits it.
ON_FREE: Final = tuple(
    attack._replace(name=f"{attack.name}, plan Free", headers=attack.headers | {"x-api-key": FREE_KEY})
    for attack in (REFUSED[0], REFUSED[5], REPAIRED[0])
)
# These are no attacks, but the largest honest requests.
HONEST: Final = (
    Attack("honest: 8,192 log records of 30 attributes under 8 KB", LOGS, PROTOBUF, collector_batch),
    Attack("honest: 64 MiB of log records", LOGS, PROTOBUF, partial(honest_logs, LARGEST)),
)


def honest(port: int, stop: Event, out: "mp.Queue[list[float]]") -> None:
    """Send small requests until `stop` is set. Put the duration of each, in seconds, into `out`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    taken_s: list[float] = []
    while not stop.is_set():
        began = time.perf_counter()
        connection.request("POST", LOGS, small_logs(), PROTOBUF)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"the honest client was answered {answer.status}")
        taken_s.append(time.perf_counter() - began)
        time.sleep(PAUSE_S)
    out.put(taken_s)


def beside(port: int, work: "Iterator[None]") -> list[float]:
    """Do `work` while the honest client sends. Return the durations of its requests, in seconds."""
    stop: Event = mp.Event()
    out: mp.Queue[list[float]] = mp.Queue()
    # A daemon ends with this process, also if the attack fails.
    client = mp.Process(target=honest, args=(port, stop, out), daemon=True)
    client.start()
    try:
        for _ in work:
            pass
    finally:
        stop.set()
    taken_s = out.get(timeout=ANSWER_TIMEOUT_S)
    client.join()
    return taken_s


def nothing() -> Iterator[None]:
    """Wait without an attack."""
    time.sleep(ALONE_S)
    yield


def loop_cpu_seconds(pid: int) -> float:
    """Return the CPU-seconds of the first thread, which has the event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


class Sending:
    """Sends one attack repeatedly."""

    def __init__(self, port: int, attack: Attack, seconds: float) -> None:
        self.headers, self.body = attack.sent()
        self.path = attack.path
        self.port = port
        self.seconds = seconds
        self.statuses: list[int] = []

    def run(self) -> Iterator[None]:
        """Send until the time is over, and yield after each request."""
        end = time.monotonic() + self.seconds
        while not self.statuses or time.monotonic() < end:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT_S)
            connection.request("POST", self.path, self.body, self.headers)
            answer = connection.getresponse()
            answer.read()
            self.statuses.append(answer.status)
            connection.close()
            yield


def allow_the_key(data_dir: Path) -> None:
    """Write a file with a key on plan Free, of a separate tenant. Senders without a key are another tenant."""
    data_dir.mkdir()
    now = datetime.now(UTC)
    key = Key(
        key_format.id_of(FREE_KEY), "noisy", Scope.INGEST, "Free", key_format.sha256_of(FREE_KEY), now, None, "of the benchmark"
    )
    (data_dir / keys.FILE_NAME).write_bytes(write_entries([key]))


def measure(here: Path, attack: Attack | ConnectionAttack, seconds: float) -> dict[str, Any]:
    """Return the cost of one attack."""
    program = Program(
        here / "data", logging__level="warning", broker__in_flight_bytes_max=IN_FLIGHT_BYTES_MAX, http__metrics_interval_s=1
    )
    allow_the_key(here / "data")
    with started(program):
        pid, port = program.pid(), program.http_port
        alone_ms = percentile_ms(beside(port, nothing()), 99)
        sending: Sending | Connecting
        if isinstance(attack, Attack):
            sending = Sending(port, attack, seconds)
        else:
            sending = Connecting(port, attack, seconds)
        memory, cpu_s, loop_s = memory_mib(pid), cpu_seconds(pid), loop_cpu_seconds(pid)
        taken_s = beside(port, sending.run())
        requests = len(sending.statuses)
        return {
            "name": attack.name,
            "body_bytes": len(attack.body()) if isinstance(attack, Attack) else len(sending.body),
            "sent_bytes": len(sending.body),
            "status": max(sending.statuses),
            "loop_ms": round((loop_cpu_seconds(pid) - loop_s) / requests * 1000),
            "cpu_ms": round((cpu_seconds(pid) - cpu_s) / requests * 1000),
            "memory_mib": memory_mib(pid) - memory,
            "p99_ms": round(percentile_ms(taken_s, 99), 1),
            "p99_alone_ms": round(alone_ms, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="of the attacks whose name has this in it")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    print(tables.HEADS[SUITE])
    attacks: tuple[Attack | ConnectionAttack, ...] = (*REFUSED, *HONEST, *REPAIRED, *ON_FREE, *ATTACKS)
    failed = []
    for attack in attacks:
        if options.only in attack.name:
            try:
                with tempfile.TemporaryDirectory() as directory:
                    result = measure(Path(directory), attack, options.seconds)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  # the others are measured all the same
                failed.append(f"{attack.name}: not measured: {error!r}")
                continue
            print(tables.hostile_row(result), flush=True)
            if options.keep:
                measuring.keep(SUITE, result, ("name",))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
