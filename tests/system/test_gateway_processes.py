"""A gateway of several processes: one page of metrics, signals, who outlives whom, ports and secrets."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from support.processes.kafka import shared_bootstrap
from support.processes.production import Bootstrapped, gateway, send_one
from support.processes.program import metric, run, started
from support.senders import Senders
from support.waiting import until


class SharedKafka(NamedTuple):
    """The broker that all tests of this process share: it does not matter here what is in it."""

    bootstrap: str


@pytest.fixture
def kafka() -> Bootstrapped:
    return SharedKafka(shared_bootstrap())


def test_one_page_of_metrics_whichever_worker_answers(kafka: Bootstrapped, tmp_path: Path) -> None:
    """Counts are those of all workers, and never go back, though one is killed; gauges are of those that live."""
    with started(gateway(kafka, tmp_path, workers=3)) as front:
        accepted = ("infrasage_ingestion_events_total", 'status="accepted"', 'type="log"')
        for _ in range(30):  # each by a connection of its own, so by one worker or another
            assert send_one(front.http).status_code == 200
        assert {metric(front.http, *accepted) for _ in range(12)} == {30}
        assert {metric(front.http, "infrasage_processes") for _ in range(6)} == {3}
        assert metric(front.http, "infrasage_up", 'part="broker"') == 1
        assert metric(front.http, "infrasage_http_requests_total", 'endpoint="/v1/logs"', 'code="200"') == 30
        before = metric(front.http, "infrasage_append_duration_seconds_count")
        os.kill(front.children()[0], signal.SIGKILL)
        # A connection that the killed worker had accepted is reset.
        assert until(lambda: {metric(front.http, *accepted) for _ in range(6)}) == {30}
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
def test_a_signal_under_load_is_passed_on(kafka: Bootstrapped, tmp_path: Path, to_all: bool) -> None:
    """Every worker finishes what it has begun, and all end with 0; also where each is signalled too, as systemd does. Before
    that, each reports that it stops."""
    with started(gateway(kafka, tmp_path, shutdown__lame_duck_s=4)) as front, Senders(front.http_port) as senders:
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


def test_workers_do_not_outlive_the_process_above(kafka: Bootstrapped, tmp_path: Path) -> None:
    """Killed, it leaves nobody behind who would hold the ports."""
    with started(gateway(kafka, tmp_path)) as front:
        workers = front.children()
        front.kill()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        front.start()
        assert send_one(front.http).status_code == 200


def test_two_gateways_do_not_share_a_port_by_mistake(kafka: Bootstrapped, tmp_path: Path) -> None:
    """The second gets an error that names the flag to change."""
    with started(gateway(kafka, tmp_path)) as front:
        done = run(
            *("gateway", "--workers", "2", "--http-port", str(front.http_port), "--otlp-http-port", "0", "--grpc-port", "0"),
            kafka__bootstrap=kafka.bootstrap,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            f"port {front.http_port} of 127.0.0.1 is in use by another program; choose another with --http-port" in done.stderr
        )


def test_secrets_are_in_nobody_s_sight(kafka: Bootstrapped, tmp_path: Path) -> None:
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
    with started(gateway(kafka, tmp_path, **settings)) as front:  # not let in, so not ready: but there
        for pid in (front.pid(), *front.children()):
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert send_one(front.http).status_code == 503
        assert front.stop() == 0
    assert secret not in front.log() + front.printed
    shown = run("config", "show", **settings)
    assert (shown.returncode, secret in shown.stdout) == (0, False)
    assert f'password_file = "{tmp_path}/password"' in shown.stdout
