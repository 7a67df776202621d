"""Senders that send again what was not answered, through other gateways, while processes die: each record is stored once."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from support.processes.clickhouse_server import bridge
from support.processes.kafka_cluster import started_cluster
from support.processes.production import ask_server, clickhouse_settings, gateway, is_well, lag_lines, writer
from support.processes.program import metric, run, started
from support.resending import Resending
from support.senders import COUNTS_SQL
from support.waiting import until


@pytest.mark.soak  # tests/system/test_repetitions.py loses answers, and test_chaos.py has what dies
def test_each_request_is_stored_once_whatever_dies(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Brokers, a writer and gateways' workers are killed, and a tenth of the answers is not read. Distinct records sent =
    stored, none twice; the audit adds up. --chaos-seconds lengthens each stretch."""
    stretch_s: float = max(10.0, pytestconfig.getoption("--chaos-seconds"))
    with (
        started_cluster(tmp_path / "kafka", session_s=3) as cluster,
        bridge(tmp_path / "clickhouse") as clickhouse,
    ):
        on = {"repetitions__window_s": 900}
        fronts = [gateway(cluster, tmp_path / name, workers=1, kafka__append_timeout_s=8, **on) for name in ("g1", "g2")]
        first, second = (writer(cluster, clickhouse, tmp_path / name, **on) for name in ("first", "second"))
        with started(fronts[0]), started(fronts[1]), started(first), started(second):
            with Resending([front.http_port for front in fronts]) as senders:
                for turn in range(5):
                    time.sleep(stretch_s)
                    broker = list(cluster.brokers.values())[turn % 3]
                    broker.kill()
                    time.sleep(stretch_s)
                    os.kill(first.worker(), signal.SIGKILL)
                    for worker in fronts[turn % 2].children():
                        os.kill(worker, signal.SIGKILL)
                    time.sleep(stretch_s)
                    broker.start()
                    goal = len(senders.sent) + 100
                    until(lambda: len(senders.sent) > goal)  # noqa: B023 - at once
                    for each in (first, second):
                        until(partial(is_well, each.http))
            partitions = sum(len(cluster.partitions(topic)) for topic in cluster.topics() if topic.startswith("infrasage"))
            time.sleep(3.5)  # the lag is looked at every three seconds

            def nothing_left() -> bool:
                return sum(lag_lines(each.http) for each in (first, second)) == partitions and not any(
                    metric(each.http, "infrasage_log_lag_messages") for each in (first, second)
                )

            until(nothing_left)
            counts = {number: times for number, times in ask_server(clickhouse, COUNTS_SQL)}  # noqa: C416  # rows of two
            left_out = sum(metric(each.http, "infrasage_writer_repeated_messages_total") for each in (first, second))
        print(f"{len(senders.sent):,} records sent, {senders.resent:,} requests sent again, {left_out:.0f} messages left out")
        lost = senders.sent - counts.keys()
        twice = {number: times for number, times in counts.items() if times > 1}
        assert (set(), {}) == (lost, twice)
        assert senders.resent > 10
        settings = {**clickhouse_settings(clickhouse), "kafka__bootstrap": cluster.bootstrap}
        said = json.loads(run("audit", "--json", **settings).stdout)
        assert (0, 0) == (said["difference"], said["messages_behind"]), said
