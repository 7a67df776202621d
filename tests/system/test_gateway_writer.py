"""Gateways, a real Kafka, writers and ClickHouse: what dies, and what is stored all the same."""

import json
import os
import re
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
import httpx
from support.processes.clickhouse_server import bridge, server
from support.processes.kafka import Kafka
from support.processes.production import WRITING, ask_server, clickhouse_settings, gateway, send_one, writer
from support.processes.program import Program, run, started
from support.senders import COUNTS_SQL, Senders
from support.waiting import until

# In a data directory, whatever else is there.
KEYS = ("keys.json", "keys.json.lock")


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
