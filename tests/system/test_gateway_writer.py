"""Gateways, a real Kafka, writers and ClickHouse: what dies, and what is stored all the same."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import grpc
import httpx
import pytest
from support.processes.clickhouse_server import Bridge, Server, bridge, server
from support.processes.kafka import Kafka
from support.processes.production import WRITING, ask_server, clickhouse_settings, gateway, is_well, lag_lines, writer
from support.processes.program import Program, WriterCommand, metric, run, started
from support.senders import COUNTS_SQL, Senders, otlp_logs
from support.waiting import until

# In a data directory, whatever else is there.
KEYS = ("keys.json", "keys.json.lock")


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """One of its own for each test: the topics have fixed names."""
    made = Kafka(tmp_path / "kafka")
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """For those to whom it does not matter what is in it."""
    made = Kafka(tmp_path_factory.mktemp("shared") / "kafka", is_killed=False)
    made.start()
    yield made
    made.close()


def send_one(http: str, body: str = "x") -> httpx.Response:
    headers = {"Content-Type": "application/x-protobuf"}
    return httpx.post(f"{http}/v1/logs", content=otlp_logs([body]), headers=headers, timeout=20)


def test_the_sum_adds_up_though_a_worker_and_a_writer_are_killed(kafka: Kafka, tmp_path: Path) -> None:
    """`audit` over Kafka and ClickHouse: zero; and a batch that is taken out of the tables is missed, by its name."""
    with (
        bridge(tmp_path / "clickhouse") as clickhouse,
        started(gateway(kafka, tmp_path)) as front,
        started(writer(kafka, clickhouse, tmp_path / "writer")) as back,
    ):
        settings = {**clickhouse_settings(clickhouse), "kafka__bootstrap": kafka.bootstrap}
        with Senders(front.http_port, threads=4) as senders:
            time.sleep(0.7)
            os.kill(front.children()[0], signal.SIGKILL)
            back.kill()
            back.start()
            time.sleep(0.7)
        done = run("audit", "--json", **settings)
        said = json.loads(done.stdout)
        assert (done.returncode, said["difference"], said["messages_behind"]) == (0, 0, 0), done.stdout
        for topic in said["topics"].values():
            assert topic["accepted"] <= topic["broker"] == topic["stored"]
        assert sum(topic["accepted"] for topic in said["topics"].values()) >= len(senders.acknowledged) > 100
        done = run("top", "--endpoint", back.http, "--once", "--interval", "1")
        assert re.match(r"\w+  writer ", done.stdout), done.stderr
        assert "RECEIVED" not in done.stdout, "a writer receives nothing"
        batch_id = send_one(front.http).headers["x-infrasage-batch-id"]
        until(lambda: ask_server(clickhouse, f"SELECT count() FROM telemetry_batches WHERE BatchId = '{batch_id}'") == [(1,)])
        client = clickhouse_connect.get_client(
            host=urlsplit(clickhouse.url).hostname or "",
            port=urlsplit(clickhouse.url).port or 0,
            username=clickhouse.user,
            password=clickhouse.password,
            database=clickhouse.database,
        )
        for table in ("otel_logs", "telemetry_batches"):
            client.command(f"ALTER TABLE {table} DELETE WHERE BatchId = '{batch_id}'", settings={"mutations_sync": 2})
        client.close()
        done = run("audit", "--json", **settings)
        said = json.loads(done.stdout)
        assert (done.returncode, said["topics"]["infrasage.logs"]["broker_difference"]) == (1, 1), said
        (fault,) = (fault for fault in said["faults"] if fault["batch_id"])
        assert fault["batch_id"] == batch_id
        assert fault["what"] == "the broker has it (1 logs), the store has nothing"


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


def test_a_real_kafka_with_the_embedded_engine(kafka: Kafka, tmp_path: Path) -> None:
    """`serve --kafka`: how a developer tries it. Killed under load and started again; the query command reads it all."""
    program = Program(tmp_path / "data", kafka__bootstrap=kafka.bootstrap, query__wait_s=30, **WRITING)
    with started(program):
        assert kafka.bootstrap in program.printed
        assert str(program.data_dir) in program.printed
        with Senders(program.http_port) as senders:
            time.sleep(1)
            program.kill()
            program.start()
            time.sleep(1)
        senders.check({int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)})
        assert len(senders.acknowledged) > 100
        assert {path.name for path in program.data_dir.iterdir()} == {"lock", "store", "query.sock", *KEYS}
        assert program.stop() == 0, program.log()
    # Where none runs, the query command stores what is left.
    with started(gateway(kafka, tmp_path, workers=1)) as front:
        assert send_one(front.http, "999999999").status_code == 200
    assert program.value("SELECT count() FROM otel_logs WHERE Body = '999999999'") == 1


def test_a_local_log_with_a_server(tmp_path: Path) -> None:
    """`serve --clickhouse`: the log is on disk, the tables are the server's; query asks the server."""
    with server(tmp_path / "clickhouse") as clickhouse:
        program = Program(tmp_path / "data", **clickhouse_settings(clickhouse))
        with started(program):
            assert send_one(program.http, "7").status_code == 200
            until(lambda: ask_server(clickhouse, "SELECT count() FROM otel_logs") == [(1,)])
            assert {path.name for path in program.data_dir.iterdir()} == {
                "lock",
                "log",
                "log.acknowledged",
                "query.sock",
                *KEYS,
            }
            assert httpx.get(f"{program.http}/healthz").json()["status"] == "ok"
            assert program.stop() == 0, program.log()
        done = run("schema", "apply", **clickhouse_settings(clickhouse))
        assert (done.returncode, done.stdout) == (0, "the tables are up to date\n"), done.stderr


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


def test_topics_that_may_not_be_created_are_named(kafka: Kafka) -> None:
    """The start fails, with the commands that create them, once, however many processes it would have been."""
    for workers in (1, 2):
        done = run(
            *("gateway", "--http-port", "0", "--otlp-http-port", "0", "--grpc-port", "0"),
            kafka__bootstrap=kafka.bootstrap,
            kafka__create_topics="false",
            gateway__workers=workers,
        )
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.count("kafka.create_topics is false") == 1
        assert "--create --topic infrasage.metrics" in done.stderr
        assert "Traceback" not in done.stderr


def test_one_page_of_metrics_whichever_worker_answers(shared_kafka: Kafka, tmp_path: Path) -> None:
    """Counts are those of all workers, and never go back, though one is killed; gauges are of those that live."""
    with started(gateway(shared_kafka, tmp_path, workers=3)) as front:
        accepted = ("infrasage_ingestion_events_total", 'status="accepted"', 'type="log"')
        for _ in range(30):  # each by a connection of its own, so by one worker or another
            assert send_one(front.http).status_code == 200
        assert {metric(front.http, *accepted) for _ in range(12)} == {30}
        assert {metric(front.http, "infrasage_processes") for _ in range(6)} == {3}
        assert metric(front.http, "infrasage_up", 'part="broker"') == 1
        assert metric(front.http, "infrasage_http_requests_total", 'endpoint="/v1/logs"', 'code="200"') == 30
        before = metric(front.http, "infrasage_append_duration_seconds_count")
        os.kill(front.children()[0], signal.SIGKILL)
        assert {metric(front.http, *accepted) for _ in range(6)} == {30}
        until(lambda: metric(front.http, "infrasage_processes") == 3)
        assert metric(front.http, "infrasage_process_restarts_total") == 1
        for _ in range(10):
            assert send_one(front.http).status_code == 200
        assert {metric(front.http, *accepted) for _ in range(6)} == {40}
        assert metric(front.http, "infrasage_append_duration_seconds_count") == before + 10 == 40
        done = run("top", "--endpoint", front.http, "--once", "--interval", "1")
        assert re.match(r"\w+  gateway ", done.stdout), done.stderr
        assert "3 processes  replaced processes: 1\n" in done.stdout
        assert "to Kafka/s" in done.stdout


@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_under_load_is_passed_on(shared_kafka: Kafka, tmp_path: Path, to_all: bool) -> None:
    """Every worker finishes what it has begun, and all end with 0; also where each is signalled too, as systemd does. Before
    that, each reports that it stops."""
    with started(gateway(shared_kafka, tmp_path, shutdown__lame_duck_s=4)) as front, Senders(front.http_port) as senders:
        time.sleep(0.7)
        workers = front.children()
        began = time.monotonic()
        front.signal(signal.SIGTERM)
        if to_all:
            for worker in workers:
                os.kill(worker, signal.SIGTERM)
        # Each connection may be another worker's; the first may not have heard yet.
        until(lambda: [httpx.get(f"{front.http}/healthz").json()["status"] for _ in range(4)] == ["stopping"] * 4)
        assert time.monotonic() - began < 4
        assert front.wait() == 0, front.log()
        assert time.monotonic() - began < 14
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert "by itself" not in front.log()
    assert len(senders.acknowledged) > 50


def test_workers_do_not_outlive_the_process_above(shared_kafka: Kafka, tmp_path: Path) -> None:
    """Killed, it leaves nobody behind who would hold the ports."""
    with started(gateway(shared_kafka, tmp_path)) as front:
        workers = front.children()
        front.kill()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        front.start()
        assert send_one(front.http).status_code == 200


def test_two_gateways_do_not_share_a_port_by_mistake(shared_kafka: Kafka, tmp_path: Path) -> None:
    """The second is told, by the flag to change."""
    with started(gateway(shared_kafka, tmp_path)) as front:
        done = run(
            *("gateway", "--workers", "2", "--http-port", str(front.http_port), "--otlp-http-port", "0", "--grpc-port", "0"),
            kafka__bootstrap=shared_kafka.bootstrap,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert f"port {front.http_port} of 127.0.0.1 is in use by another program; --http-port names another" in done.stderr


def test_secrets_are_in_nobody_s_sight(shared_kafka: Kafka, tmp_path: Path) -> None:
    """Neither in arguments, nor in what is printed and logged, of the process above and of its workers."""
    secret = "hunter2-and-more"
    (tmp_path / "password").write_text(secret + "\n")
    settings: dict[str, Any] = {
        "kafka__security": "SASL_PLAINTEXT",
        "kafka__username": "someone",
        "kafka__password_file": tmp_path / "password",
        "logging__level": "debug",
        "shutdown__timeout_s": 3,
    }
    with started(gateway(shared_kafka, tmp_path, **settings)) as front:  # not let in, so not ready: but there
        for pid in (front.pid(), *front.children()):
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert send_one(front.http).status_code == 503
        assert front.stop() == 0
    assert secret not in front.log() + front.printed
    shown = run("config", "show", **settings)
    assert (shown.returncode, secret in shown.stdout) == (0, False)
    assert f'password_file = "{tmp_path}/password"' in shown.stdout
