"""The composition root: what it says, what it does when a part fails, and how it stops all the same."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.program import environment, run

from collector import app, listening, logs
from collector.config import ClickHouse, Grpc, Http, Kafka, Settings, Tls
from collector.errors import CannotRun
from collector.lock import DataDirLock
from collector.metrics import Metrics

FREE_PORTS = {"http__port": 0, "http__otlp_port": 0, "grpc__port": 0}


@pytest.mark.parametrize(
    ("host", "listening_on", "own"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::", "[::]", "[::1]"),
        ("::1", "[::1]", "[::1]"),
        ("collector.example", "collector.example", "collector.example"),
    ],
)
def test_the_announcement_can_be_pasted(tmp_path: Path, host: str, listening_on: str, own: str) -> None:
    """Three addresses as URLs need them, the data's absolute path, and a curl line for an address that can be reached."""
    text = listening.announcement(Settings(host=host, data_dir=tmp_path / "my data"), 1, 2, 3)
    assert f" http://{listening_on}:1\n" in text
    assert f" http://{listening_on}:2\n" in text
    assert f" {listening_on}:3\n" in text
    assert f" {tmp_path}/my data\n" in text
    assert f"--data-dir '{tmp_path}/my data'" in text
    (curl,) = re.findall(r"^  (curl .*)$", text, re.MULTILINE)
    assert f" http://{own}:1/api/v1/telemetry " in curl
    words = subprocess.run(
        ["bash", "-c", curl.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
    )
    assert re.search(r'"timestamp": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"', words.stdout)


@pytest.mark.parametrize(
    ("key", "flag"), [("http.port", "--http-port"), ("http.otlp_port", "--otlp-http-port"), ("grpc.port", "--grpc-port")]
)
def test_a_port_in_use_is_told_with_its_flag(key: str, flag: str) -> None:
    """Before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotRun, match=f"^port {port} of 127.0.0.1 is in use by another program; {flag} names another$"):
            listening.check_port(key, "127.0.0.1", port)
    listening.check_port(key, "127.0.0.1", port)


def test_a_query_while_somebody_silent_holds_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is starting gets time to answer; after that, the message names the process."""
    monkeypatch.setattr(app, "STARTING_MAX_S", 0.3)
    monkeypatch.setattr(logs, "set_up", lambda _settings: None)  # pytest's own stays
    (tmp_path / "store").mkdir()
    with (
        DataDirLock(tmp_path),
        pytest.raises(CannotRun, match=r"in use by process \d+, which does not answer at .*query\.sock$"),
    ):
        app.query_offline(Settings(data_dir=tmp_path), "SELECT 1", "CSV")


def test_a_log_that_is_not_ours_is_named(tmp_path: Path) -> None:
    """What lies in the log's place is left alone, and told."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "messages.sqlite").write_bytes(b"not a database, but long enough to have a header" * 40)

    async def open_it() -> None:
        async with app.open_storage(Settings(data_dir=tmp_path), Metrics()):
            pass

    with pytest.raises(CannotRun, match=r"cannot open the local log .*messages\.sqlite"):
        asyncio.run(open_it())
    assert (tmp_path / "log" / "messages.sqlite").read_bytes().startswith(b"not a database")


SABOTAGE = """
import asyncio, collector.app
class Broken(collector.app.Writer):
    async def run(self):
        {run}
collector.app.Writer = Broken
from collector.cli import main
main()
"""


def sabotaged(tmp_path: Path, run: str, **settings: object) -> subprocess.Popen[str]:
    """`serve` with a writer that does this instead of its work; ready."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", SABOTAGE.format(run=run), "serve", "--data-dir", str(tmp_path / "data")),
            *("--http-port", "0", "--otlp-http-port", "0", "--grpc-port", "0"),
        ],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("run", ["await asyncio.sleep(0.1); raise RuntimeError('sabotage')", "return"])
def test_it_does_not_limp(tmp_path: Path, run: str) -> None:
    """If the writer ends by itself, the collector says so and ends with an error: whoever watches it starts it again."""
    with sabotaged(tmp_path, run) as process:
        assert process.wait(20) == 1
    text = (tmp_path / "log").read_text()
    assert "a part of the collector ended by itself" in text
    assert ("sabotage" in text) == ("sabotage" in run)


def test_it_stops_in_time_whatever_hangs(tmp_path: Path) -> None:
    """A part that does not stop is left behind when the time is over, and the exit status tells."""
    with sabotaged(tmp_path, "await asyncio.sleep(3600)", shutdown__timeout_s=1) as process:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 1
        assert time.monotonic() - began < 3
    assert "could not stop in time" in (tmp_path / "log").read_text()


def test_ports_are_taken_from_the_settings() -> None:
    """Each port that is listened on, by the name of its setting."""
    assert listening.ports(Settings(http=Http(port=1, otlp_port=2))) == {"http.port": 1, "http.otlp_port": 2, "grpc.port": 4317}


def test_ports_are_held_for_several_processes() -> None:
    """A free port is the same for all of them; another collector is told that it is in use, as soon as one listens."""
    settings = Settings(http=Http(port=0, otlp_port=0), grpc=Grpc(port=0))
    with contextlib.closing(listening.SharedPorts(settings)) as shared:
        held = shared.settings(settings)
        ports = listening.ports(held)
        assert 0 not in ports.values()
        assert len(set(ports.values())) == 3
        for key, port in ports.items():
            with (
                socket.create_server(("127.0.0.1", port), reuse_port=True),  # as a worker does
                pytest.raises(CannotRun, match="in use by another program"),
            ):
                listening.check_port(key, "127.0.0.1", port)
    listening.SharedPorts(held).close()


@pytest.mark.parametrize(("client_ca", "identity"), [(None, ""), (Path("clients.pem"), " --cert FILE --key FILE")])
def test_the_announcement_says_https_where_it_is(client_ca: Path | None, identity: str) -> None:
    """Of every port; and what a client needs beside."""
    settings = Settings(tls=Tls(cert_file=Path("server.pem"), client_ca_file=client_ca))
    text = listening.announcement(settings, 1, 2, 3) + listening.writer_announcement(settings, 4)
    for port in range(1, 5):
        assert f" https://127.0.0.1:{port}" in text
    assert f"  curl{identity} https://127.0.0.1:1/api/v1/telemetry " in text
    assert "http://" not in text


@pytest.mark.parametrize(
    ("settings", "stores", "expected"),
    [
        (Settings(kafka=Kafka(bootstrap="k:9092")), True, {"Kafka", "data"}),
        (Settings(clickhouse=ClickHouse(url="http://c:8123")), True, {"ClickHouse", "data"}),
        (Settings(kafka=Kafka(bootstrap="k:9092"), clickhouse=ClickHouse(url="http://c:8123")), True, {"Kafka", "ClickHouse"}),
        (Settings(kafka=Kafka(bootstrap="k:9092")), False, {"Kafka", "processes"}),
    ],
)
def test_the_announcement_names_what_is_used(settings: Settings, stores: bool, expected: set[str]) -> None:
    """The data directory only where something is in it; how to ask, only where there is a store."""
    text = listening.announcement(settings, 1, 2, 3, stores=stores)
    assert {line.split()[0] for line in text.splitlines()[4:-2]} == expected
    assert ("ask for it with" in text) == stores
    assert ("--clickhouse http://c:8123" in text) == bool(settings.clickhouse.url)


def test_a_server_that_refuses_ends_the_start(tmp_path: Path) -> None:
    """What waiting does not change is told at once: here, something answers that is not ClickHouse."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = other.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        done = run("serve", "--clickhouse", f"http://127.0.0.1:{port}", "--data-dir", tmp_path / "data", **FREE_PORTS)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: ClickHouse at" in done.stderr
    assert "not ClickHouse's HTTP interface" in done.stderr
    assert "Traceback" not in done.stderr
