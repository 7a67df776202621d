"""SIGTERM and SIGINT: finish what is in flight, within the set time; a second signal: at once."""

import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from functools import partial
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.processes.program import MakeProgram, Program, environment
from support.senders import COUNTS_SQL, Senders, otlp_logs
from support.waiting import until

PROTOBUF = "application/x-protobuf"


def test_a_signal_under_load_loses_nothing(make_program: MakeProgram) -> None:
    """It exits with 0 and in time, with an empty log, and every acknowledged record is stored once."""
    program = make_program(shutdown__timeout_s=10)
    program.start()
    with Senders(program.http_port) as senders:
        time.sleep(1)
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.log()
        assert time.monotonic() - began < 10
    assert len(senders.acknowledged) > 100
    assert not (program.data_dir / "query.sock").exists()
    with closing(sqlite3.connect(program.data_dir / "log" / "messages.sqlite")) as log:
        assert log.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    senders.check({int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)})


def hang(program: Program) -> socket.socket:
    """A request whose body never comes whole."""
    connection = socket.create_connection(("127.0.0.1", program.http_port))
    connection.sendall(
        b"POST /api/v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    time.sleep(0.3)
    return connection


def test_what_never_ends_does_not_hold_it_up(make_program: MakeProgram) -> None:
    """A body that never comes whole, a query that takes for ever: the set time is kept."""
    program = make_program(shutdown__timeout_s=3)
    program.start()
    endless = subprocess.Popen(
        [*program.command, "query", "--data-dir", str(program.data_dir), "SELECT count() FROM numbers(1000000000000)"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with hang(program), endless:
        time.sleep(1)
        began = time.monotonic()
        assert program.stop() == 0, program.log()
        assert time.monotonic() - began < 8
        assert endless.stderr is not None
        assert endless.stderr.read().startswith("error: ")
        assert endless.wait(10) == 1


def test_a_second_signal_ends_it_at_once(make_program: MakeProgram) -> None:
    """A second Ctrl-C ends it at once; what was acknowledged is in the log all the same."""
    program = make_program(shutdown__timeout_s=60)
    program.start()
    with hang(program):
        program.signal(signal.SIGINT)
        time.sleep(0.5)
        began = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.wait() == 128 + signal.SIGINT
        assert time.monotonic() - began < 10


def failing_page(url: str) -> httpx.Response | None:
    """What it says, unless it is 200."""
    said = httpx.get(url)
    return None if said.is_success else said


def test_a_lame_duck_reports_its_end_and_answers(make_program: MakeProgram) -> None:
    """/healthz is 503 and gRPC's health NOT_SERVING at once, and requests are accepted until `lame_duck_s` is over."""
    program = make_program(shutdown__lame_duck_s=4)
    program.start()
    with Senders(program.http_port, threads=2), grpc.insecure_channel(program.grpc) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        for port in (program.http, program.otlp_http):
            page = until(partial(failing_page, f"{port}/healthz"))
            assert (page.status_code, page.json()["status"], page.headers["connection"]) == (503, "stopping", "close")
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = httpx.post(f"{program.http}/v1/logs", content=otlp_logs(["late"]), headers={"Content-Type": PROTOBUF})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert time.monotonic() - began < 4, "all of that before it ended"
        assert program.wait() == 0, program.log()
        assert time.monotonic() - began >= 4
    assert program.value("SELECT count() FROM otel_logs WHERE Body = 'late'") == 1


def test_who_waits_at_the_terminal_waits_for_no_lame_duck(make_program: MakeProgram) -> None:
    """Nor does a collector that nobody was connected to."""
    program = make_program(shutdown__lame_duck_s=600)
    program.start()
    assert program.stop() == 0, program.log()
    program.start()
    assert httpx.get(f"{program.http}/healthz").is_success
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.log()
