"""Gateways and writers whose Kafka or ClickHouse is away: what they answer meanwhile, and that they go on by themselves."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from support.processes.clickhouse_server import Bridge, Server, bridge
from support.processes.kafka import Kafka
from support.processes.production import ask_server, gateway, is_well, lag_lines, send_one, writer
from support.processes.program import Program, WriterCommand, metric, started
from support.senders import COUNTS_SQL, Senders, otlp_logs
from support.waiting import until


def stored_once(senders: Senders, clickhouse: Server, *writers: WriterCommand) -> None:
    """Wait until the writers have nothing left to store, and count."""
    partitions = 24  # four topics of six

    def nothing_left() -> bool:
        return sum(lag_lines(each.http) for each in writers) == partitions and not any(
            metric(each.http, "infrasage_log_lag_messages") for each in writers
        )

    time.sleep(3.5)  # the lag is looked at every three seconds
    until(nothing_left)
    for each in writers:
        until(partial(is_well, each.http))
    senders.check({number: times for number, times in ask_server(clickhouse, COUNTS_SQL)})  # noqa: C416  # rows of two


def test_kafka_killed_and_back(kafka: Kafka, tmp_path: Path) -> None:
    """503 with Retry-After, or UNAVAILABLE, when append_timeout_s (2 s) is over, and /healthz says so; ready again by itself,
    and nothing is lost."""
    with (
        bridge(tmp_path / "clickhouse") as clickhouse,
        started(gateway(kafka, tmp_path)) as front,
        started(writer(kafka, clickhouse, tmp_path / "writer")) as back,
        Senders(front.http_port, refused_may_be_stored=True) as senders,
    ):
        time.sleep(1)
        kafka.kill()
        began = time.monotonic()
        answer = send_one(front.http, "999999999")
        assert time.monotonic() - began < 5
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        with grpc.insecure_channel(front.grpc) as channel:
            export: Any = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as refused:
                export(otlp_logs(["999999999"]), timeout=10)
            assert time.monotonic() - began < 5
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        # Each of the two workers finds out by itself.
        for _ in range(8):
            until(lambda: httpx.get(f"{front.http}/healthz").status_code == 503)
        health = httpx.get(f"{front.http}/healthz").json()
        assert (health["status"], health["kafka"], health["clickhouse"]) == ("unavailable", "unavailable", "not used")
        # The writer needs no help: restarting it would change nothing.
        told = until(lambda: (said := httpx.get(f"{back.http}/healthz")).json()["kafka"] == "unavailable" and said)
        assert (told.status_code, told.json()["status"]) == (200, "degraded")
        kafka.start()
        for _ in range(8):
            until(lambda: httpx.get(f"{front.http}/healthz").status_code == 200)
        senders.in_doubt.add(999999999)
        time.sleep(0.5)
        senders.stop()
        stored_once(senders, clickhouse, back)
        assert senders.refused.keys() == {503}


def test_away_at_the_start(tmp_path: Path) -> None:
    """Whatever starts first waits for the rest, and says so: in any order all become ready."""
    kafka = Kafka(tmp_path / "kafka")
    clickhouse = Bridge("", directory=tmp_path / "clickhouse")
    clickhouse.start()
    clickhouse.kill()
    alone = gateway(kafka, tmp_path / "alone", workers=1)
    whole = Program(tmp_path / "whole" / "data", kafka__bootstrap=kafka.bootstrap)
    with (
        started(gateway(kafka, tmp_path)) as front,
        started(writer(kafka, clickhouse, tmp_path / "writer")) as back,
        started(alone),
        started(whole),
    ):
        for program in (front, back, alone, whole):
            assert "waits for Kafka: cannot use Kafka at" in program.printed
            assert "is ready" not in program.printed
        assert "query" in whole.next_line()
        answer = send_one(front.http)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{front.http}/healthz").json()["kafka"] == "unavailable"
        health = httpx.get(f"{back.http}/healthz")
        assert (health.status_code, health.json()["status"], health.json()["kafka"]) == (200, "degraded", "unavailable")
        try:
            kafka.start()
            for program in (front, back, alone, whole):
                assert "is ready: Kafka is reached." in program.next_line()
            assert (0, 0) == (alone.stop(), whole.stop())  # `whole` would store some of what comes
            until(lambda: send_one(front.http, "1").status_code == 200)
            # ClickHouse is still away: the gateway does not mind, the writer waits.
            until(lambda: httpx.get(f"{front.http}/healthz").json()["status"] == "ok")
            until(lambda: httpx.get(f"{back.http}/healthz").json()["kafka"] == "ok")
            health = until(lambda: (said := httpx.get(f"{back.http}/healthz").json())["clickhouse"] != "ok" and said)
            assert health["status"] == "degraded"
            clickhouse.start()
            until(lambda: httpx.get(f"{back.http}/healthz").json()["status"] == "ok")
            until(lambda: ask_server(clickhouse, "SELECT count() > 0 FROM otel_logs") == [(1,)])
        finally:
            kafka.close()
            clickhouse.kill()
