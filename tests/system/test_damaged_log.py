"""A local log that lost messages, as an operator sees it."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from support.processes.program import MakeProgram, metric, run
from support.senders import otlp_logs
from support.waiting import until


def test_a_loss_is_shown_until_it_is_confirmed(make_program: MakeProgram) -> None:
    """A write-ahead log that is removed: the start says what is lost, /healthz, metrics and the audit show it, and after
    `log confirm`, while the collector runs, they do no more. What came before and after is stored."""
    program = make_program(clickhouse__url="http://127.0.0.1:9")  # nothing is stored yet
    program.start()

    def send(body: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"service_id": "damage", "type": "log", "body": body, "timestamp": now}
        assert 200 == httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code

    for _ in range(3):
        send("lost")
    program.kill()
    shutil.move(program.data_dir / "log" / "messages.sqlite-wal", program.data_dir.parent / "removed")

    del program.settings["clickhouse__url"]
    program.start()
    send("after")
    assert "acknowledged messages of the local log are lost or damaged" in program.log()

    def health() -> tuple[int, str, str]:
        answer = httpx.get(f"{program.http}/healthz")
        return answer.status_code, answer.json()["status"], answer.json()["log"]

    until(lambda: health() == (200, "degraded", "damaged"))
    until(lambda: metric(program.http, "infrasage_log_lost_messages") == 3)
    audited = run("audit", "--json", "--data-dir", program.data_dir)
    assert (1, 3) == (audited.returncode, json.loads(audited.stdout)["log_lost_messages"])

    confirmed = run("log", "confirm", "--data-dir", program.data_dir)
    assert (0, True) == (confirmed.returncode, "3 messages lost" in confirmed.stdout)
    until(lambda: health() == (200, "ok", "ok"))
    until(lambda: metric(program.http, "infrasage_log_lost_messages") == 0)
    program.wait_for("SELECT groupArray(Body) FROM otel_logs", ["after"])
    audited = run("audit", "--json", "--data-dir", program.data_dir)
    assert (0, True) == (audited.returncode, json.loads(audited.stdout)["adds_up"])


def test_a_log_that_is_removed_while_it_runs_takes_nothing(make_program: MakeProgram) -> None:
    """Over HTTP and gRPC it is 503 and UNAVAILABLE, with the reason in the log and in /healthz. What was acknowledged before is
    stored, also by the end that follows, and the next start takes telemetry again."""
    program = make_program(writer__linger_ms=0)
    program.start()

    def send(body: str) -> int:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"service_id": "removed", "type": "log", "body": body, "timestamp": now}
        return httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code

    def log_state() -> tuple[int, str]:
        answer = httpx.get(f"{program.http}/healthz")
        return answer.status_code, answer.json()["log"]

    acknowledged = [body for body in (f"before {number}" for number in range(20)) if send(body) == 200]
    assert 20 == len(acknowledged)
    shutil.rmtree(program.data_dir / "log")
    assert [503] * 3 == [send("refused") for _ in range(3)]
    with grpc.insecure_channel(program.grpc) as channel:
        export: Any = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as refused:
            export(otlp_logs(["refused"]), timeout=20)
    assert grpc.StatusCode.UNAVAILABLE == refused.value.code()
    until(lambda: log_state() == (503, "removed"))
    assert "local log cannot be written" in program.log()
    assert "was removed while it was in use" in program.log()
    assert program.stop() == 0
    program.start()
    assert 200 == send("after")
    program.wait_for("SELECT arraySort(groupArray(Body)) FROM otel_logs", sorted([*acknowledged, "after"]))
    audited = run("audit", "--json", "--data-dir", program.data_dir)
    assert (0, True) == (audited.returncode, json.loads(audited.stdout)["adds_up"])


def test_a_log_that_is_cut_while_it_runs_takes_nothing(make_program: MakeProgram) -> None:
    """It is 503 until the restart, which finds or reports what was in the file. Nothing of what was refused is stored."""
    program = make_program(clickhouse__url="http://127.0.0.1:9")  # nothing is stored yet
    program.start()

    def send(body: str) -> int:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"service_id": "cut", "type": "log", "body": body, "timestamp": now}
        return httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code

    assert [200] * 5 == [send("before") for _ in range(5)]
    os.truncate(program.data_dir / "log" / "messages.sqlite-wal", 0)
    assert [503] * 3 == [send("refused") for _ in range(3)]
    until(lambda: httpx.get(f"{program.http}/healthz").json()["log"] == "cut")
    assert "was cut while it was in use" in program.log()
    assert program.stop() == 0
    del program.settings["clickhouse__url"]
    program.start()
    assert 200 == send("after")
    program.wait_for("SELECT countIf(Body = 'after') FROM otel_logs", 1)
    assert 0 == program.value("SELECT countIf(Body = 'refused') FROM otel_logs")
    found = program.value("SELECT countIf(Body = 'before') FROM otel_logs")
    until(lambda: metric(program.http, "infrasage_log_lost_messages") == 5 - found)


def test_a_store_that_was_removed_is_missed(make_program: MakeProgram) -> None:
    """The log says that it was stored before: with the store gone, the start says so at error, and goes on."""
    program = make_program()
    program.start()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"service_id": "gone", "type": "log", "body": "b", "timestamp": now}
    assert 200 == httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code
    assert 1 == program.value("SELECT count() FROM otel_logs")
    assert program.stop() == 0
    shutil.rmtree(program.data_dir / "store")
    program.start()
    assert "the store is new, but the local log beside it has stored messages" in program.log()
    assert 200 == httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code
    program.wait_for("SELECT count() FROM otel_logs", 1)
    assert program.stop() == 0
    program.start()
    assert 1 == program.log().count("the store is new")


def test_an_older_copy_of_the_store_is_missed(make_program: MakeProgram, tmp_path: Path) -> None:
    """Put back without its log: the start says at error how many messages were stored since, once, and goes on. /healthz, a
    metric and the audit show it until it is confirmed, or the newer store is put back."""
    program = make_program()
    copy, newer, store = tmp_path / "copy", tmp_path / "newer", program.data_dir / "store"

    def run_with(body: str, lacking: int = 0) -> None:
        program.start()
        until(lambda: shown() == (("degraded", "damaged") if lacking else ("ok", "ok")))
        until(lambda: metric(program.http, "infrasage_log_lost_messages") == lacking)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"service_id": "old", "type": "log", "body": body, "timestamp": now}
        assert 200 == httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20).status_code
        program.wait_for(f"SELECT countIf(Body = '{body}') FROM otel_logs", 1)
        assert program.stop() == 0

    def shown() -> tuple[str, str]:
        health = httpx.get(f"{program.http}/healthz").json()
        return health["status"], health["log"]

    def audited() -> tuple[int, int]:
        done = run("audit", "--json", "--data-dir", program.data_dir)
        return done.returncode, json.loads(done.stdout)["log_lost_messages"]

    run_with("before")
    shutil.copytree(store, copy, symlinks=True)
    run_with("since")
    assert "the store is older" not in program.log()
    store.rename(newer)
    copy.rename(store)
    run_with("after", lacking=1)
    (line,) = [line for line in program.log().splitlines() if "the store is older than the local log beside it" in line]
    assert ("error", 1) == ((said := json.loads(line))["level"], said["messages"])
    run_with("later", lacking=1)
    assert (1, 1) == audited()
    assert 1 == program.log().count("the store is older")
    assert ["after", "before", "later"] == [row["Body"] for row in program.query("SELECT Body FROM otel_logs ORDER BY Body")]

    # The newer one is put back: it has what was missing, and lacks what came meanwhile.
    store.rename(copy)
    newer.rename(store)
    run_with("last", lacking=2)
    assert "messages that were missing in the store are there again" in program.log()
    assert 0 == run("log", "confirm", "--data-dir", program.data_dir).returncode
    run_with("confirmed")
    assert (0, 0) == audited()
    assert ["before", "confirmed", "last", "since"] == [
        row["Body"] for row in program.query("SELECT Body FROM otel_logs ORDER BY Body")
    ]
