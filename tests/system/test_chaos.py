"""Three brokers, a gateway, two writers and ClickHouse, disturbed under load: what is acknowledged is stored, once."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.processes.chaos import BRIEF, HEAD, LONG, SHORT, Chaos, Fault, Scene, StoreWatch, until_whole
from support.processes.clickhouse_server import bridge
from support.processes.faulty_network import FaultyNetwork
from support.processes.kafka_cluster import started_cluster
from support.processes.production import ask_server, clickhouse_settings, gateway, is_well, lag_lines, writer
from support.processes.program import metric, run, started
from support.senders import COUNTS_SQL, Senders
from support.waiting import until

# Of all topics but the logs'.
OTHER_PARTITIONS = 18
# Requests end in time when the store's network fails.
STORE = {"clickhouse__request_timeout_s": 5, "clickhouse__connect_timeout_s": 3}


@pytest.fixture
def scene(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Scene]:
    """Running, with its senders."""
    is_long = pytestconfig.getoption("--chaos-seconds") > 0
    seed = pytestconfig.getoption("--chaos-seed")
    seed = random.randrange(2**32) if seed is None else seed
    print(f"--chaos-seed={seed}")
    # Kafka's own time, and ours, where somebody wants to know how long it takes; else as short as can be.
    session = {"kafka__session_timeout_s": 10 if is_long else 3}
    # Where other tests take the processors, Kafka takes longer than its clients usually wait.
    waiting = {} if is_long else {"kafka__append_timeout_s": 5}
    with (
        started_cluster(tmp_path / "kafka", session_s=9 if is_long else 3) as cluster,
        bridge(tmp_path / "clickhouse") as clickhouse,
        FaultyNetwork(clickhouse.port) as store_network,
        started(gateway(cluster, tmp_path, **waiting)) as front,
    ):
        store = replace(clickhouse, url=f"http://{store_network.address}")
        first, second = (writer(cluster, store, tmp_path / name, **STORE, **session) for name in ("first", "second"))
        with started(first), started(second), Senders(front.http_port, threads=8, refused_may_be_stored=True) as senders:
            yield Scene(cluster, clickhouse, store_network, front, (first, second), senders, random.Random(seed))


@pytest.mark.parametrize("short", [BRIEF, pytest.param(SHORT, marks=pytest.mark.soak)], ids=["brief", "short"])
def test_what_is_acknowledged_is_stored_once_whatever_is_disturbed(
    scene: Scene, short: Sequence[Fault], pytestconfig: pytest.Config
) -> None:
    """Processes are killed and paused, networks drop, cut and reset. Each record is stored once, none is lost, the audit adds
    up, and where Kafka takes what is sent, nothing is refused. --chaos-seconds prints the whole table."""
    seconds: int = pytestconfig.getoption("--chaos-seconds")
    only = pytestconfig.getoption("--chaos-only")
    faults = [fault for fault in (LONG if seconds else short) if only in fault.name]
    with StoreWatch(scene.clickhouse) as store:
        chaos = Chaos(scene, store)
        goes_on(scene)
        with chaos.measuring("none") as none:
            time.sleep(10 if seconds else 2)
            none.ended = time.monotonic()
        if not seconds:
            scene.chance.shuffle(faults)
            faults.sort(key=lambda fault: fault.is_refused)
        for fault in faults:
            measured = chaos.disturb(fault, lambda: goes_on(scene, is_long=seconds > 0))
            assert fault.is_refused or not measured.refused, f"{fault.name}: {scene.senders.refused}"
        if seconds:
            at_random(scene, chaos, seconds, faults)
    counts = stored(scene)
    print(HEAD, *(each.row(counts) for each in chaos.measured), sep="\n")
    scene.senders.check(counts)
    acknowledged = len(scene.senders.acknowledged)
    print(f"{acknowledged:,} records acknowledged, {len(counts):,} stored: 0 lost, 0 twice; the rest was not acknowledged")
    audit(scene)
    assert scene.senders.refused.keys() <= {503}
    for each in scene.writers:
        assert each.stop() == 0, each.log()
    logs = scene.front.log() + "".join(each.log() for each in scene.writers)
    if any("worker is killed" in fault.name for fault in faults):
        assert "a worker ended by itself, and is replaced" in logs
    assert "Traceback" not in logs, logs[logs.find("Traceback") - 2000 :][:6000]


def at_random(scene: Scene, chaos: Chaos, seconds: int, faults: Sequence[Fault]) -> None:
    """One fault after another, none waited for."""
    over = time.monotonic() + seconds
    with chaos.measuring("at random, one after another") as measured:
        while time.monotonic() < over:
            fault = scene.chance.choice(faults)
            print(fault.name, flush=True)
            end = fault.begin(scene)
            time.sleep(scene.chance.uniform(0.3, max(0.5, fault.seconds)))
            end()
            time.sleep(scene.chance.uniform(0.1, 3))
        measured.ended = time.monotonic()
        goes_on(scene, is_long=True)


def goes_on(scene: Scene, *, is_long: bool = False) -> None:
    """More is acknowledged and stored, by all; and the cluster is whole again, so that the next fault is the only one."""
    acknowledged = len(scene.senders.acknowledged)
    until(lambda: len(scene.senders.acknowledged) > acknowledged + 100)
    until_whole(scene.cluster)
    for each in scene.writers:
        until(partial(is_well, each.http))
    if is_long:
        until(lambda: sum(lag_lines(each.http) for each in scene.writers) == OTHER_PARTITIONS + scene.partitions)


def stored(scene: Scene) -> dict[int, int]:
    """How often each number is, once everything is."""
    scene.senders.stop()
    assert scene.front.stop() == 0, scene.front.log()
    partitions = OTHER_PARTITIONS + scene.partitions

    def nothing_left() -> bool:
        return sum(lag_lines(each.http) for each in scene.writers) == partitions and not any(
            metric(each.http, "infrasage_log_lag_messages") for each in scene.writers
        )

    time.sleep(3.5)  # the lag is looked at every three seconds
    until(nothing_left)
    return {number: times for number, times in ask_server(scene.clickhouse, COUNTS_SQL)}  # noqa: C416  # rows of two


def audit(scene: Scene) -> None:
    settings = {**clickhouse_settings(scene.clickhouse), "kafka__bootstrap": scene.cluster.bootstrap}
    done = run("audit", "--json", **settings)
    said = json.loads(done.stdout)
    assert (done.returncode, said["difference"], said["messages_behind"]) == (0, 0, 0), done.stdout
