"""Faults of a whole production under load: its processes, its brokers, and the networks between them.

A `Scene` is three brokers, a gateway of two workers, two writers, and ClickHouse, with counting senders. Each `Fault` begins
and ends something in it. `Measured` is what was seen meanwhile.
"""

import itertools
import os
import random
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self
from urllib.request import Request, urlopen

from support.processes import faulty_network
from support.processes.clickhouse_server import Bridge
from support.processes.commands import pause, resume
from support.processes.faulty_network import FaultyNetwork
from support.processes.kafka_cluster import KafkaCluster
from support.processes.program import Gateway, WriterCommand
from support.senders import Senders

_LOGS: Final = "infrasage.logs"
_ROWS_SQL: Final = "SELECT (SELECT count() FROM otel_logs) + (SELECT count() FROM otel_metrics_gauge)"
_LOOKED_EVERY_S: Final = 0.25


@dataclass
class Scene:
    """What can be disturbed."""

    cluster: KafkaCluster
    clickhouse: Bridge
    store_network: FaultyNetwork
    front: Gateway
    writers: Sequence[WriterCommand]
    senders: Senders
    chance: random.Random
    partitions: int = 6  # of the logs' topic

    def broker(self) -> int:
        """One that leads partitions."""
        return self.chance.choice(sorted(set(self.cluster.leaders(_LOGS).values())))


# What ends a fault.
End = Callable[[], object]


@dataclass(frozen=True)
class Fault:
    """`begin` says what ends it, `seconds` later. `is_refused`: whether Kafka may not take in time what is sent meanwhile."""

    name: str
    seconds: float
    begin: Callable[[Scene], End]
    is_refused: bool = True


def _nothing() -> None:
    pass


def _kill_worker(scene: Scene) -> End:
    os.kill(scene.chance.choice(scene.front.children()), signal.SIGKILL)
    return _nothing


def _pause_worker(scene: Scene) -> End:
    return _paused(scene.chance.choice(scene.front.children()))


def _paused(pid: int) -> End:
    """A process that is no child of ours."""
    os.kill(pid, signal.SIGSTOP)
    return partial(os.kill, pid, signal.SIGCONT)


def _kill_writing(scene: Scene) -> End:
    """The process that writes; the one above replaces it."""
    os.kill(scene.chance.choice(scene.writers).worker(), signal.SIGKILL)
    return _nothing


def _kill_writer(scene: Scene) -> End:
    one = scene.chance.choice(scene.writers)
    one.kill()
    return one.start


def _pause_writer(scene: Scene) -> End:
    return _paused(scene.chance.choice(scene.writers).worker())


def _kill_clickhouse(scene: Scene) -> End:
    scene.clickhouse.kill()
    return scene.clickhouse.start


def _pause_clickhouse(scene: Scene) -> End:
    pid = scene.clickhouse.pid()
    pause(pid)
    return partial(resume, pid)


def _kill_brokers(scene: Scene, count: int = 1) -> End:
    first = scene.broker()
    numbers = [first, *(number for number in scene.cluster.brokers if number != first)][:count]
    for number in numbers:
        scene.cluster.brokers[number].kill()
    return lambda: scene.cluster.start(*numbers)


def _pause_broker(scene: Scene) -> End:
    broker = scene.cluster.brokers[scene.broker()]
    broker.pause()
    return broker.resume


def _restart_brokers(scene: Scene) -> End:
    """One after another, as an upgrade does."""
    for number, broker in scene.cluster.brokers.items():
        broker.end()
        scene.cluster.start(number)
        until_whole(scene.cluster)
    return _nothing


def _add_partitions(scene: Scene) -> End:
    scene.partitions += 3
    scene.cluster.add_partitions(_LOGS, scene.partitions)
    return _nothing


def _broker_network(fault: faulty_network.Fault, scene: Scene) -> End:
    network = scene.cluster.networks[scene.broker()]
    network.fault(fault)
    return network.heal


def _all_networks(fault: faulty_network.Fault, scene: Scene) -> End:
    networks = scene.cluster.networks.values()
    for network in networks:
        network.fault(fault)

    def heal() -> None:
        for network in networks:
            network.heal()

    return heal


def _store_network(fault: faulty_network.Fault, scene: Scene) -> End:
    scene.store_network.fault(fault)
    return scene.store_network.heal


def _named(fault: faulty_network.Fault) -> str:
    return {
        "delay": "300 ms each way",
        "drop": "drops all packets",
        "half_open": "loses the answers",
        "reset": "resets connections in requests",
        "cut": "resets connections in answers",
        "slow": "50 kB/s",
        "refuse": "refuses connections",
    }[fault]


# Each kind, until Kafka or the group evicts somebody.
SHORT: Final = (
    Fault("a gateway worker is killed", 1, _kill_worker, is_refused=False),
    Fault("a writer is killed", 1, _kill_writing, is_refused=False),
    Fault("a writer is paused", 4, _pause_writer, is_refused=False),
    Fault("ClickHouse is killed", 1, _kill_clickhouse, is_refused=False),
    Fault("ClickHouse is paused", 3, _pause_clickhouse, is_refused=False),
    Fault("ClickHouse's network resets connections in answers", 3, partial(_store_network, "cut"), is_refused=False),
    Fault("a gateway worker is paused", 3, _pause_worker),
    Fault("a broker is killed", 1, _kill_brokers),
    Fault("a broker is paused", 5, _pause_broker),
    Fault("a broker's network drops all packets", 5, partial(_broker_network, "drop")),
    Fault("all brokers' networks reset connections in answers", 3, partial(_all_networks, "cut")),
)
# For every test run: those that no other test has. Of the rest, tests/integration/kafka/test_cluster.py has the brokers',
# tests/integration/clickhouse the server's, and tests/system/test_gateway_writer.py a worker and a writer that are killed.
BRIEF: Final = tuple(
    fault
    for fault in SHORT
    if fault.name
    in (
        "a writer is paused",
        "ClickHouse's network resets connections in answers",
        "a gateway worker is paused",
        "all brokers' networks reset connections in answers",
    )
)
# For `make chaos`.
LONG: Final = (
    Fault("a gateway worker is killed", 1, _kill_worker, is_refused=False),
    Fault("a gateway worker is paused", 6, _pause_worker),
    Fault("a writer is killed, and replaced by itself", 1, _kill_writing, is_refused=False),
    Fault("a writer and what watches it are killed, and started", 2, _kill_writer, is_refused=False),
    Fault("a writer is paused, longer than its session", 12, _pause_writer, is_refused=False),
    Fault("ClickHouse is killed, and started", 5, _kill_clickhouse, is_refused=False),
    Fault("ClickHouse is paused", 12, _pause_clickhouse, is_refused=False),
    Fault("a broker is killed, and started", 0, _kill_brokers),
    Fault("a broker is killed, and away", 25, _kill_brokers),
    Fault("a broker is paused", 15, _pause_broker),
    Fault("two of three brokers are killed", 8, partial(_kill_brokers, count=2)),
    Fault("brokers are restarted, one after another", 0, _restart_brokers),
    Fault("partitions are added", 10, _add_partitions, is_refused=False),
    *(Fault(f"a broker's network: {_named(fault)}", 10, partial(_broker_network, fault)) for fault in faulty_network.FAULTS),
    *(Fault(f"all brokers' networks: {_named(fault)}", 8, partial(_all_networks, fault)) for fault in ("drop", "reset", "cut")),
    *(
        Fault(f"ClickHouse's network: {_named(fault)}", 10, partial(_store_network, fault), is_refused=False)
        for fault in faulty_network.FAULTS
    ),
)


def until_whole(cluster: KafkaCluster, timeout_s: float = 60) -> None:
    """All replicas of all partitions are in sync."""
    deadline = time.monotonic() + timeout_s
    while True:
        topics = [cluster.partitions(topic) for topic in cluster.topics()]
        if all(len(each["isr"]) == len(each["replicas"]) for topic in topics for each in topic.values()):
            return
        assert time.monotonic() < deadline, "a replica is not in sync"
        time.sleep(0.2)


@dataclass
class Measured:
    """Of one fault, from its begin to the begin of the next. Times are the monotonic clock's."""

    name: str
    began: float
    ended: float = 0.0
    over: float = 0.0
    refused: int = 0
    numbers: list[int] = field(default_factory=list)  # acknowledged meanwhile
    gap_s: float = 0.0  # the longest time in which no request was acknowledged
    store_gap_s: float = 0.0  # the longest time in which no row came

    def row(self, counts: Mapping[int, int]) -> str:
        """In Markdown; `counts`: how often each number is stored in the end."""
        stored = sum(number in counts for number in self.numbers)
        twice = sum(counts.get(number, 0) > 1 for number in self.numbers)
        cells = [
            *(self.name, f"{self.ended - self.began:.0f} s", f"{len(self.numbers):,}", f"{stored:,}"),
            *(str(len(self.numbers) - stored), str(twice), str(self.refused)),
            *(f"{self.gap_s:.1f} s", f"{self.store_gap_s:.1f} s"),
        ]
        return f"| {' | '.join(cells)} |"


HEAD: Final = (
    "| fault | lasts | acknowledged | stored | lost | twice | requests refused | longest time without an acknowledgement"
    " | longest time without a new row |\n|---|---|---|---|---|---|---|---|---|"
)


class StoreWatch:
    """Notes when rows come. Use as a context."""

    def __init__(self, clickhouse: Bridge) -> None:
        self.times: Final[list[float]] = []
        self._clickhouse: Final = clickhouse
        self._over: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        before = -1
        while not self._over.wait(_LOOKED_EVERY_S):
            try:
                rows = self._rows()
            except OSError:  # it is away; or it answers with an error
                continue
            if rows > before:
                self.times.append(time.monotonic())
            before = rows

    def _rows(self) -> int:
        server = self._clickhouse
        login = b64encode(f"{server.user}:{server.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        request = Request(f"{server.url}/?database={server.database}", _ROWS_SQL.encode(), headers, method="POST")
        with urlopen(request, timeout=2) as answer:
            return int(answer.read())


class Chaos:
    """Disturbs a scene, and keeps what was measured."""

    def __init__(self, scene: Scene, store: StoreWatch) -> None:
        self.measured: Final[list[Measured]] = []
        self._scene: Final = scene
        self._store: Final = store

    @contextmanager
    def measuring(self, name: str) -> Iterator[Measured]:
        senders = self._scene.senders
        refused, acknowledged = sum(senders.refused.values()), len(senders.acknowledgements)
        measured = Measured(name, time.monotonic())
        yield measured
        measured.over = time.monotonic()
        measured.refused = sum(senders.refused.values()) - refused
        since = senders.acknowledgements[acknowledged:]
        measured.numbers = [number for _, numbers in since for number in numbers]
        measured.gap_s = _longest(measured, [at for at, _ in since])
        measured.store_gap_s = _longest(measured, [at for at in list(self._store.times) if at > measured.began])
        self.measured.append(measured)

    def disturb(self, fault: Fault, until: Callable[[], object]) -> Measured:
        """From its begin to its end, and then `until` it is over."""
        print(fault.name, flush=True)
        with self.measuring(fault.name) as measured:
            end = fault.begin(self._scene)
            try:
                time.sleep(fault.seconds)
            finally:
                end()
            measured.ended = time.monotonic()
            until()
        return measured


def _longest(measured: Measured, times: Sequence[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise([measured.began, *times, measured.over]))
