"""The real command as a child process: started, asked, stopped and killed, by its process id."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import infrasage
import pytest
from support.ports import free_port, free_ports
from support.store_templates import copy_store
from support.waiting import TIMEOUT_S

import collector
from collector.api.query_client import NotRunning, QueryFailed, ask

START_TIMEOUT_S = 180
COMMAND_TIMEOUT_S = 180

_ROOTS = (Path(collector.__file__).parents[1], Path(infrasage.__file__).parents[1])


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with exactly these settings: http__port=8080."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFRASAGE_")}
    given = {f"INFRASAGE_{name.upper()}": str(value) for name, value in settings.items()}
    # The command must be the very code that the tests import, installed or not.
    return inherited | given | {"PYTHONPATH": os.pathsep.join(str(root) for root in dict.fromkeys(_ROOTS))}


def heed_interrupts() -> None:
    """For a child before it begins: a test that runs in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "collector", *map(str, arguments)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


class Command:
    """One of the long-running commands; may be started again after it has ended."""

    # Begins the last line that it prints when it is ready.
    ready = "curl "

    def __init__(self, place: Path, **settings: object) -> None:
        """`place`: beside it are its log and its working directory. `settings` by variable, without the prefix."""
        self.command = [sys.executable, "-m", "collector"]
        # However full the disk is on which the tests run; and they look at what has just been counted.
        common: dict[str, object] = {
            "local_log__reserve_percent": 0,
            "local_log__reserve_bytes_min": 0,
            "http__metrics_interval_s": 0,
        }
        # Nor does each stop of theirs wait for balancers.
        common["shutdown__lame_duck_s"] = 0
        # To them what is two days old is too old, whatever it came by.
        common |= {f"validation__otlp_{signal}_past_max_s": 0 for signal in ("metrics", "logs", "traces")}
        common["validation__remote_write_past_max_s"] = 0
        # They send equal requests, and mean each of them; tests of repetitions say otherwise.
        common["repetitions__window_s"] = 0
        # One port for all tests that run at once; those about it have one of their own.
        common["store__http_port"] = "none"
        self.settings: dict[str, object] = common | settings
        self.printed = ""
        self.log_path = place.parent / f"{place.name}.log"
        self.working_dir = place.parent / "elsewhere"
        self._process: subprocess.Popen[str] | None = None

    def arguments(self) -> list[str]:
        """After the command's own."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start it, and return at once."""
        self.working_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("a") as log:
            self._process = subprocess.Popen(
                [*self.command, *self.arguments()],
                env=environment(**self.settings),
                cwd=self.working_dir,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(self) -> None:
        """Start it, and return when it has said that it is ready."""
        self.launch()
        self.await_ready()

    def await_ready(self) -> None:
        """After `launch`: return when it has said that it is ready."""
        assert self._process is not None
        # Reading blocks, so a program that is never ready is killed: then reading ends.
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.start()
        assert self._process.stdout is not None
        self.printed = ""
        for line in self._process.stdout:
            self.printed += line
            if line.lstrip().startswith(self.ready):
                break
        else:
            pytest.fail(f"it ended with {self._process.wait()} before it was ready; it said:\n{self.printed}\n{self.log()}")
        watchdog.cancel()
        self.take_addresses()

    def next_line(self) -> str:
        """Return what it prints next after it was ready; wait for it."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def take_addresses(self) -> None:
        """Where it listens, from what it printed."""

    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """The processes that it started, by their ids."""
        pid = self.pid()
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self) -> str:
        """What it has written to standard error, over all its lives."""
        return self.log_path.read_text()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit status."""
        assert self._process is not None
        status = self._process.wait(timeout_s)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """Whatever state it is in, it is gone afterwards."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self.wait()


C = TypeVar("C", bound=Command)


class Receiver(Command):
    """A command with the receivers' three ports; started again, it has the same ones."""

    def __init__(self, place: Path, **settings: object) -> None:
        super().__init__(place, **settings)
        self.http_port, self.otlp_http_port, self.grpc_port = free_ports(3)

    def ports(self) -> list[str]:
        return [
            *("--http-port", str(self.http_port), "--otlp-http-port", str(self.otlp_http_port)),
            *("--grpc-port", str(self.grpc_port)),
        ]

    def take_addresses(self) -> None:
        http, otlp = re.findall(r"https?://127\.0\.0\.1:(\d+)", self.printed)[:2]
        grpc = re.search(r"gRPC\s+(?:https://)?127\.0\.0\.1:(\d+)", self.printed)
        assert grpc is not None, self.printed
        self.http_port, self.otlp_http_port, self.grpc_port = int(http), int(otlp), int(grpc[1])

    @property
    def scheme(self) -> str:
        return "https" if "tls__cert_file" in self.settings else "http"

    @property
    def http(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.http_port}"

    @property
    def otlp_http(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.otlp_http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


class Gateway(Receiver):
    """`gateway`, as several processes where gateway__workers says so."""

    def arguments(self) -> list[str]:
        return ["gateway", *self.ports()]


class WriterCommand(Command):
    """`writer`."""

    ready = "ClickHouse "

    def __init__(self, place: Path, **settings: object) -> None:
        super().__init__(place, **settings)
        self.port = free_port()

    def arguments(self) -> list[str]:
        return ["writer", "--port", str(self.port)]

    def take_addresses(self) -> None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/healthz", self.printed)
        assert found is not None, self.printed
        self.port = int(found[1])

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker(self) -> int:
        """The process that writes, by its id; the command's own only watches it."""
        (worker,) = self.children()
        return worker


class Program(Receiver):
    """`serve` on one data directory."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        """`settings` by variable, without the prefix: local_log__bytes_max=1000."""
        super().__init__(data_dir, **settings)
        self.data_dir = data_dir
        # Whether the first start finds an empty store, so that it need not make one.
        self.gets_tables = "clickhouse__url" not in settings

    def arguments(self) -> list[str]:
        return ["serve", "--data-dir", str(self.data_dir), *self.ports()]

    def launch(self) -> None:
        if self.gets_tables and not self.data_dir.exists():
            self.data_dir.mkdir(mode=0o700, parents=True)
            copy_store(self.data_dir / "store")
        self.gets_tables = False
        super().launch()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows, by the query socket; by the query command where nobody answers there. 64-bit integers are numbers."""
        try:
            rows = ask(self.data_dir, sql, "JSONEachRow").body.decode()
        except (NotRunning, QueryFailed):  # it is starting, or ending, or does not run
            done = run("query", "--data-dir", self.data_dir, "--format", "JSONEachRow", sql, **self.settings)
            assert done.returncode == 0, done.stderr + self.log()
            rows = done.stdout
        return [json.loads(line) for line in rows.splitlines()]

    def value(self, sql: str) -> Any:
        """The one value of the one row."""
        (row,) = self.query(sql)
        (value,) = row.values()
        return value

    def wait_for(self, sql: str, expected: object, timeout_s: float = TIMEOUT_S) -> None:
        """Ask until the one value is as expected; for what a client sends when it sees fit."""
        until = time.monotonic() + timeout_s
        while (value := self.value(sql)) != expected:
            assert time.monotonic() < until, f"{sql}: {value!r} after {timeout_s} s, expected {expected!r}\n{self.log()}"
            time.sleep(0.3)


@contextmanager
def started(command: C) -> Iterator[C]:
    """The command, running; whatever state it is in, it is gone afterwards. Where the test fails, what it said is shown."""
    try:
        command.start()
        yield command
    except BaseException:
        print(f"{command.log_path}:\n{command.log()[-10_000:]}")
        raise
    finally:
        command.close()


def metric(http: str, name: str, *labels: str) -> float:
    """The sum of its samples that have these labels, each written name="value"."""
    lines = httpx.get(f"{http}/metrics").text.splitlines()
    samples = [line for line in lines if line.split("{")[0].split(" ")[0] == name and all(label in line for label in labels)]
    return sum(float(line.rpartition(" ")[2]) for line in samples)


# The fixture's type: settings in, a program out that is not started yet.
MakeProgram = Callable[..., Program]


def require_peer(name: str, *, knows: tuple[str, ...] = ()) -> Path:
    """The path of a client that is not Python's: from PATH, or built by CI into $PEERS/bin. `knows`: words of its help.

    Missing, the test is skipped with what to do, or, under CI, fails; CI says PEERS_OPTIONAL=1 where it could not build them.
    """
    peers = Path(os.environ.get("PEERS") or Path.home() / ".cache/infrasage-peers")
    for path in (None, str(peers / "bin")):
        found = shutil.which(name, path=path)
        if found and all(word in _help_of(found) for word in knows):
            return Path(found)
    which = f"{name} that knows {', '.join(knows)}" if knows else name
    message = f"{which} is neither in PATH nor in {peers}/bin: this test did not run; install or build it (PEERS={peers})"
    if os.environ.get("CI") and not os.environ.get("PEERS_OPTIONAL"):
        pytest.fail(message)
    pytest.skip(message)


def _help_of(command: str) -> str:
    done = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    return done.stdout + done.stderr
