"""Measures how the gateway's cost grows: records per CPU-second by items, attributes, tenants and connections.

    python bench/growth.py [--dimension items,attributes,tenants,connections] [--rounds 3] [--seconds 3] [--keep]

Needs Kafka's jars in $PEERS. OTLP metrics are sent over HTTP, into Kafka with acks=all. Unless it is varied, a request has 100
items with 4 attributes each and no key, and there are 32 connections. Each value has its own gateway, on the first core. All
gateways of a dimension run at the same time, but only one of them gets requests at a time. The rounds take them in turn.

Large requests are sent over fewer connections, so that at most 32 MiB are in flight at once. Each tenant has a key of a plan
with limits that are counted and never reached. The requests of tenants alternate.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import bodies, measuring, tables
from bench.measuring import CONNECTIONS, Senders, Side, closed_loop, cpu_seconds, http_message, http_senders, memory_mib
from collector.tenancy import key_format, keys
from collector.tenancy.keys_file import Key, write_entries
from collector.tenancy.scopes import Scope

SUITE: Final = "growth"
SAME: Final = ("dimension", "value")
VALUES: Final = {
    "items": (1, 10, 100, 1000, 10_000, 100_000),
    "attributes": (1, 4, 16, 64),
    "tenants": (1, 10, 100, 1000, 10_000),
    "connections": (1, 10, 100, 1000),
}
ITEMS: Final = 100
ATTRIBUTES: Final = 4
BYTES_ON_THEIR_WAY_MAX: Final = 32 << 20
WARM_S: Final = 0.5
PLAN: Final = """
[plans.Bench]
requests_per_s = 1000000
items_per_s = 1000000000
bytes_per_s = "4 GiB"
"""


def tenants_keys(path: Path, number: int) -> list[str]:
    """Write a file of keys for `number` tenants, and return the texts of the keys. The file is written once: `keys create`
    would write it for each key."""
    texts = [key_format.new() for _ in range(number)]
    now = datetime.now(UTC)
    path.write_bytes(
        write_entries(
            [
                Key(key_format.id_of(text), f"tenant-{at}", Scope.INGEST, "Bench", key_format.sha256_of(text), now, None, "")
                for at, text in enumerate(texts)
            ]
        )
    )
    return texts


class Subject:
    """A gateway, and the requests that it gets."""

    def __init__(self, here: Path, kafka: str, dimension: str, value: int) -> None:
        name = f"{dimension}-{value}"
        self.value = value
        self.items = value if dimension == "items" else ITEMS
        self._bodies = bodies.otlp("metrics", self.items, value if dimension == "attributes" else ATTRIBUTES)
        self._headers = [""]
        settings = ""
        if dimension == "tenants":
            path = here / f"{name}.{keys.FILE_NAME}"
            self._headers = [f"X-API-Key: {text}\r\n" for text in tenants_keys(path, value)]
            settings = f'tenants.keys_file = "{path}"\n{PLAN}'
        self._connections = value if dimension == "connections" else self._fitting()
        self.gateway = measuring.Gateway(here, kafka, measuring.NO_REPETITIONS + settings, name)
        self.side = Side()

    def _fitting(self) -> int:
        """Return the number of connections with at most BYTES_ON_THEIR_WAY_MAX in flight."""
        return max(1, min(CONNECTIONS, BYTES_ON_THEIR_WAY_MAX // len(self._bodies[0])))

    def senders(self) -> Senders:
        # Each tenant sends one request before the first tenant sends again.
        number = max(len(self._headers), len(self._bodies))
        messages = [
            http_message("/v1/metrics", self._bodies[at % len(self._bodies)], headers=self._headers[at % len(self._headers)])
            for at in range(number)
        ]
        return http_senders(self.gateway.otlp_port, messages, self._connections)


def measure(here: Path, kafka: str, dimension: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    subjects = [Subject(here, kafka, dimension, value) for value in VALUES[dimension]]
    with ExitStack() as stack:
        pids = [
            stack.enter_context(measuring.server(each.gateway.command, each.gateway.otlp_port, each.gateway.log))
            for each in subjects
        ]
        for each in subjects:
            closed_loop(each.senders(), WARM_S)
        for _ in range(rounds):
            for each, pid in zip(subjects, pids, strict=True):
                before = cpu_seconds(pid)
                taken = closed_loop(each.senders(), seconds)
                each.side.add(each.items, cpu_seconds(pid) - before, taken)
        return results(dimension, subjects, [memory_mib(pid) for pid in pids])


def results(dimension: str, subjects: Sequence[Subject], memory: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"dimension": dimension, "value": each.value, "items": each.items, "ours": each.side.result(mib)}
        for each, mib in zip(subjects, memory, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", default=",".join(VALUES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    measuring.leave_the_first_core()
    with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
        for dimension in options.dimension.split(","):
            print(tables.growth_head(dimension))
            for result in measure(Path(directory), kafka, dimension, options.rounds, options.seconds):
                print(tables.growth_row(result), flush=True)
                if options.keep:
                    measuring.keep(SUITE, result, SAME)


if __name__ == "__main__":
    main()
