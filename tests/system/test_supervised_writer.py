"""The writer command: one process watches, another writes. Whatever ends the one that writes, a new one writes on."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from support.processes.clickhouse_server import Bridge, Server, bridge
from support.processes.kafka import Kafka
from support.processes.program import Gateway, WriterCommand, metric, run, started
from support.senders import otlp_logs
from support.waiting import TIMEOUT_S, until

INSERTS = "infrasage_writer_insert_duration_seconds_count"
FAST = {"writer__linger_ms": 5, "writer__retry_max_s": 0.5, "kafka__session_timeout_s": 2, "shutdown__timeout_s": 10}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    made = Kafka(tmp_path_factory.mktemp("supervised") / "kafka")
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with bridge(tmp_path_factory.mktemp("supervised") / "clickhouse") as made:
        yield made


def settings_of(kafka: Kafka, clickhouse: Server, **changes: object) -> dict[str, object]:
    return {
        "kafka__bootstrap": kafka.bootstrap,
        "clickhouse__url": clickhouse.url,
        "clickhouse__user": clickhouse.user,
        "clickhouse__password": clickhouse.password,
        "clickhouse__database": clickhouse.database,
        "store__fsync": "false",
        **FAST,
        **changes,
    }


def writer(kafka: Kafka, clickhouse: Server, place: Path, **changes: object) -> WriterCommand:
    return WriterCommand(place / "writer", **settings_of(kafka, clickhouse, **changes))


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def is_stopped(pid: int) -> bool:
    """A process that has not stopped yet is ended by a signal that comes meanwhile."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def is_well(back: WriterCommand) -> bool:
    try:
        return bool(httpx.get(f"{back.http}/healthz").json()["status"] == "ok")
    except httpx.TransportError:
        return False


def has_more(back: WriterCommand, inserts: float) -> bool:
    return metric(back.http, INSERTS) > inserts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_writer_starts_is_status_0(tmp_path: Path, number: signal.Signals) -> None:
    """This holds also for a writer too young to handle signals, and if Ctrl-C goes to both."""
    # On a busy machine it takes long until it is old enough, and then it would be killed.
    settings = {**FAST, "shutdown__timeout_s": TIMEOUT_S}
    back = WriterCommand(tmp_path / "writer", kafka__bootstrap="127.0.0.1:1", clickhouse__url="http://127.0.0.1:1", **settings)
    back.launch()
    try:
        until(back.children)
        young = back.worker()
        os.kill(young, signal.SIGSTOP)
        until(partial(is_stopped, young))
        if number == signal.SIGINT:
            os.kill(young, number)
        back.signal(number)
        until(lambda: "stopping" in back.log())
        os.kill(young, signal.SIGCONT)
        assert back.wait() == 0
        assert "Traceback" not in back.log()
        assert "ended" not in back.log()
    finally:
        back.close()


def test_a_writer_that_dies_is_replaced(kafka: Kafka, clickhouse: Bridge, tmp_path: Path) -> None:
    """It is replaced after SIGKILL and SIGSEGV, on the same port, with the former counts, and the log has it."""
    front = Gateway(tmp_path / "gateway", kafka__bootstrap=kafka.bootstrap, tenants__anonymous="yes")
    with started(front), started(writer(kafka, clickhouse, tmp_path)) as back:
        headers = {"Content-Type": "application/x-protobuf"}
        written = 0.0
        for restarts, number in enumerate([0, signal.SIGKILL, signal.SIGSEGV]):
            if number:
                before = back.worker()
                os.kill(before, number)
                until(partial(is_gone, before))
            assert httpx.post(f"{front.http}/v1/logs", content=otlp_logs(["x"]), headers=headers).status_code == 200
            until(lambda: is_well(back))
            until(partial(has_more, back, written))
            written = metric(back.http, INSERTS)
            assert restarts == metric(back.http, "infrasage_process_restarts_total")
        assert 2 == back.log().count("the writer ended by itself, and is replaced")
        assert "by signal SIGKILL" in back.log()
        assert "by signal SIGSEGV" in back.log()


@pytest.mark.parametrize("whom", ["the command", "all", "Ctrl-C"])
def test_a_writer_stops_with_status_0(kafka: Kafka, clickhouse: Bridge, tmp_path: Path, whom: str) -> None:
    """Signalled may be the command alone, each of its processes (systemd), or the terminal's group. SIGTERM leaves its page the
    time to report that; Ctrl-C does not."""
    lame_duck_s = 600 if whom == "Ctrl-C" else 3
    with started(writer(kafka, clickhouse, tmp_path, shutdown__lame_duck_s=lame_duck_s)) as back:
        worker = back.worker()
        assert httpx.get(f"{back.http}/healthz").is_success
        if whom == "all":
            os.kill(worker, signal.SIGTERM)
        if whom == "Ctrl-C":
            os.kill(worker, signal.SIGINT)
        back.signal(signal.SIGINT if whom == "Ctrl-C" else signal.SIGTERM)
        if whom != "Ctrl-C":
            assert until(lambda: httpx.get(f"{back.http}/healthz").json()["status"] == "stopping")
        assert 0 == back.wait()
        assert is_gone(worker)
        assert "ended by itself" not in back.log()


def test_a_writer_does_not_outlive_the_process_above(kafka: Kafka, clickhouse: Bridge, tmp_path: Path) -> None:
    """Killed, it leaves nobody behind who holds the port."""
    with started(writer(kafka, clickhouse, tmp_path)) as back:
        worker = back.worker()
        back.kill()
        until(lambda: is_gone(worker))
        back.start()
        until(lambda: is_well(back))


def test_a_writer_that_cannot_run_ends_the_command(kafka: Kafka, clickhouse: Bridge) -> None:
    """A wrong password, a certificate that is not there: one line says so, once, and nothing is started again."""
    settings = settings_of(kafka, clickhouse)
    for changes, said in (
        ({"clickhouse__password": "wrong"}, "Authentication failed"),
        ({"tls__cert_file": "/nonexistent.pem", "tls__key_file": "/nonexistent.pem"}, "/nonexistent.pem"),
    ):
        began = time.monotonic()
        done = run("writer", "--port", "0", **(settings | changes))
        assert (1, "") == (done.returncode, done.stdout), done.stderr
        assert 1 == done.stderr.count("error: "), done.stderr
        assert said.lower() in done.stderr.lower()
        assert "Traceback" not in done.stderr
        assert "is replaced" not in done.stderr
        assert time.monotonic() - began < 30


def test_a_port_in_use_is_named(kafka: Kafka, clickhouse: Bridge, tmp_path: Path) -> None:
    """The error names the flag to change, before anything is started."""
    with started(writer(kafka, clickhouse, tmp_path)) as back:
        done = run("writer", "--port", str(back.port), **settings_of(kafka, clickhouse))
        assert (1, "") == (done.returncode, done.stdout)
        assert f"port {back.port} of 127.0.0.1 is in use by another program; choose another with --port" in done.stderr
