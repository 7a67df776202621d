"""The commands that run: what they do when a part fails, and how they stop all the same."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.processes.program import environment, run
from support.store_templates import copy_store
from support.waiting import TIMEOUT_S

FREE_PORTS = {"http__port": 0, "http__otlp_port": 0, "grpc__port": 0}


SABOTAGE = """
import asyncio
from collector.app import writer as writing
class Broken(writing.Writer):
    async def run(self):
        {run}
writing.Writer = Broken
from collector.cli.main import main
main()
"""


def sabotaged(tmp_path: Path, run: str, **settings: object) -> subprocess.Popen[str]:
    """`serve` with a writer that does this instead of its work; ready."""
    (tmp_path / "data").mkdir(mode=0o700)
    copy_store(tmp_path / "data" / "store")
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
    """If the writer ends by itself, the collector says so and ends with an error: its supervisor starts it again."""
    with sabotaged(tmp_path, run) as process:
        assert process.wait(TIMEOUT_S) == 1
    text = (tmp_path / "log").read_text()
    assert "a part of the collector ended by itself" in text
    assert ("sabotage" in text) == ("sabotage" in run)


def test_it_stops_in_time_whatever_hangs(tmp_path: Path) -> None:
    """A part that does not stop is left behind when the time is over, and the exit status tells."""
    with sabotaged(tmp_path, "await asyncio.sleep(3600)", shutdown__timeout_s=1) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 1
    assert "could not stop in time" in (tmp_path / "log").read_text()


def test_a_server_that_refuses_ends_the_start(tmp_path: Path) -> None:
    """What waiting does not change is reported at once: here, something answers that is not ClickHouse."""
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
    assert "not from ClickHouse's HTTP interface" in done.stderr
    assert "Traceback" not in done.stderr
