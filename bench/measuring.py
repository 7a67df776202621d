"""The parts that the suites share: servers on a separate core, senders, CPU time and memory, and the files of results.

Only the server's process is measured. Senders are simple, since a slow client would change the result. Senders and Kafka have
the other cores. Load goes to this machine only, and ends by itself.
"""

import asyncio
import importlib.metadata
import itertools
import json
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import trustme
import uvloop

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.ports import free_port
from support.processes.kafka import Kafka

T = TypeVar("T")

PEERS: Final = Path(os.environ.get("PEERS") or Path.home() / ".cache/infrasage-peers")
RESULTS: Final = Path(__file__).resolve().parent / "results"
MACHINE: Final = "machine"
COLLECTOR: Final = str(Path(sys.executable).with_name("infrasage-collector"))
CONNECTIONS: Final = 32
START_TIMEOUT_S: Final = 30
ANSWER_TIMEOUT_S: Final = 60
NO_REPETITIONS: Final = "repetitions.window_s = 0\n"

Send = Callable[[], Awaitable[None]]  # sends a request and reads its answer; raises an error if it is no success
Senders = AbstractAsyncContextManager[Sequence[Send]]


# Processes.


def leave_the_first_core() -> None:
    """Leave the first core to the measured server: this process, and the processes that it starts, run on the other cores."""
    os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)) or {0})


def cpu_seconds(pid: int) -> float:
    """Return the CPU-seconds of a process, of all threads, user and system. This clock counts in nanoseconds; /proc in ticks of
    10 ms."""
    return time.clock_gettime_ns((~pid) << 3 | 2) / 1e9


def memory_mib(pid: int) -> int:
    """Return the largest resident memory that the process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


@contextmanager
def server(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """Run the command on the first core. Yield its process id once its port answers. End it when the context ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{command[0]} did not start: {log.read_text(encoding='utf-8')[-2000:]}")
                time.sleep(0.1)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def kafka(here: Path) -> Iterator[str]:
    """Run a separate broker inside this context, and yield its address."""
    broker = Kafka(
        here / "kafka",
        auto__create__topics__enable="true",
        # The Collector makes one message of each request, however large it is.
        message__max__bytes="20000000",
        # This limits the disk space of each partition.
        log__retention__bytes="1000000000",
        log__segment__bytes="200000000",
        log__retention__check__interval__ms="2000",
    )
    try:
        broker.start()
        yield broker.bootstrap
    finally:
        broker.close()


class Certificate(NamedTuple):
    """The files of a server's certificate and its key, and of the authority that signed it."""

    cert: Path
    key: Path
    authority: Path

    def client(self, *protocols: str) -> ssl.SSLContext:
        """Return a TLS context that trusts the authority, and offers these protocols by ALPN."""
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols([*protocols])
        return context


def certificate(here: Path) -> Certificate:
    """Make a new certificate for localhost."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = Certificate(*(here / f"{name}.pem" for name in Certificate._fields))
    authority.cert_pem.write_to_path(made.authority)
    issued.private_key_pem.write_to_path(made.key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(made.cert, append=True)
    return made


class Gateway:
    """Our gateway: its ports, and the command that starts it. It accepts requests without a key, and stops without a lame
    duck."""

    def __init__(
        self, here: Path, kafka_address: str, settings: str = NO_REPETITIONS, name: str = "ours", tls: Certificate | None = None
    ) -> None:
        """`settings` is more TOML. By default no repetition is recognized, since senders send the same requests repeatedly."""
        self.http_port, self.otlp_port, self.grpc_port = free_port(), free_port(), free_port()
        self.log = here / f"{name}.log"
        config = here / f"{name}.toml"
        ours = 'tenants.anonymous = "yes"\nlogging.level = "warning"\nshutdown.lame_duck_s = 0\n'
        if tls is not None:
            ours += f'tls.cert_file = "{tls.cert}"\ntls.key_file = "{tls.key}"\n'
        config.write_text(ours + settings, encoding="utf-8")
        self.command = [
            *(COLLECTOR, "gateway", "--kafka", kafka_address, "--config", str(config)),
            *("--http-port", str(self.http_port), "--otlp-http-port", str(self.otlp_port), "--grpc-port", str(self.grpc_port)),
        ]


# Sending.


def http_message(
    path: str, body: bytes, content_type: str = "application/x-protobuf", headers: str = ""
) -> tuple[bytes, bytes]:
    """Return the header and the body of a request. `headers` are further header lines, each with its line end."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {content_type}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


@asynccontextmanager
async def http_senders(
    port: int, messages: Iterable[tuple[bytes, bytes]], connections: int = CONNECTIONS, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Sequence[Send]]:
    """Yield one sender for each of `connections` connections. Each sends the next message. A sequence of messages repeats
    without end; an iterator has to be endless itself."""
    following = messages if isinstance(messages, Iterator) else itertools.cycle(messages)

    async def connect(stack: AsyncExitStack) -> Send:
        name = "localhost" if tls is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        stack.callback(writer.close)

        async def send() -> None:
            writer.writelines(next(following))
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", answer, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if not answer.startswith(b"HTTP/1.1 20"):
                raise RuntimeError((answer + body).decode(errors="replace"))

        return send

    async with AsyncExitStack() as stack:
        yield [await connect(stack) for _ in range(connections)]


@asynccontextmanager
async def grpc_senders(
    port: int, method: str, bodies: Iterable[bytes], requests: int = CONNECTIONS, tls: Certificate | None = None
) -> AsyncIterator[Sequence[Send]]:
    """Yield `requests` senders that send at the same time, on one connection, as clients do."""
    following = bodies if isinstance(bodies, Iterator) else itertools.cycle(bodies)
    async with _channel(f"localhost:{port}", tls) as channel:
        await channel.channel_ready()
        call: Any = channel.unary_unary(method)

        async def send() -> None:
            await call(next(following), timeout=ANSWER_TIMEOUT_S)

        yield [send] * requests


def _channel(address: str, tls: Certificate | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(tls.authority.read_bytes()))


def closed_loop(senders: Senders, seconds: float) -> list[float]:
    """Let each sender send its next request when it has the answer. Return the duration of each request, in seconds."""
    return closed_loop_of(senders, seconds, os.getpid())[0]


def closed_loop_of(senders: Senders, seconds: float, pid: int) -> tuple[list[float], float]:
    """Do the same as `closed_loop`. Also return the CPU-seconds of the process `pid`, without the cost of connecting, since
    clients keep their connections."""

    async def run() -> tuple[list[float], float]:
        taken: list[float] = []
        async with senders as each:
            before = cpu_seconds(pid)
            until = time.perf_counter() + seconds

            async def go(send: Send) -> None:
                while (began := time.perf_counter()) < until:
                    await send()
                    taken.append(time.perf_counter() - began)

            await asyncio.gather(*map(go, each))
            return taken, cpu_seconds(pid) - before

    return _run(run())


def open_loop(senders: Senders, per_s: float, seconds: float) -> list[float]:
    """Send `per_s` requests a second by all senders together, however long the answers take. Return the duration of each, in
    seconds, from its planned time: the wait behind a slow request counts too."""

    async def run() -> list[float]:
        taken: list[float] = []
        async with senders as each:
            began = time.perf_counter()

            async def go(index: int, send: Send) -> None:
                for turn in itertools.count(index, len(each)):
                    due = began + turn / per_s
                    if due > began + seconds:
                        return
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    await send()
                    taken.append(time.perf_counter() - due)

            await asyncio.gather(*(go(index, send) for index, send in enumerate(each)))
        return taken

    return _run(run())


def send_all(senders: Senders, requests: int) -> None:
    """Send `requests` requests, each as soon as a sender has its last answer."""

    async def run() -> None:
        left = iter(range(requests))
        async with senders as each:

            async def go(send: Send) -> None:
                for _ in left:
                    await send()

            await asyncio.gather(*map(go, each))

    _run(run())


def _run(work: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(work)


# Results.


class Side:
    """The results of one server, over the rounds."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.taken_s: list[float] = []

    def add(self, items: int, cpu_s: float, taken_s: list[float]) -> None:
        self.rates.append(len(taken_s) * items / cpu_s)
        self.taken_s += taken_s

    def result(self, memory: int) -> dict[str, Any]:
        """Return the results. `rate` is items a CPU-second: minimum, median and maximum."""
        return {
            "rate": [round(rate) for rate in spread(self.rates)],
            "p50_ms": percentile_ms(self.taken_s, 50),
            "p99_ms": percentile_ms(self.taken_s, 99),
            "memory_mib": memory,
        }


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the minimum, the median and the maximum."""
    return min(values), statistics.median(values), max(values)


def percentile_ms(taken_s: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(taken_s, n=100, method="inclusive")[percent - 1] * 1000, 2)


def numbers(text: str) -> list[int]:
    """Return the numbers of an option such as `1,100`."""
    return [int(one.replace("_", "")) for one in text.split(",") if one]


def keep(suite: str, result: dict[str, Any], same: Sequence[str]) -> None:
    """Write a result into bench/results. It replaces an earlier result that has the same values of the keys `same`, by which
    the file is sorted."""
    path = RESULTS / f"{suite}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [one for one in kept if any(one[key] != result[key] for key in same)] + [result]
    kept.sort(key=lambda one: [one[key] for key in same])
    _write(path, kept)
    note(suite)


def note(suite: str) -> None:
    """Note when, on which machine and with which versions the suite was measured last."""
    path = RESULTS / f"{MACHINE}.json"
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    noted[suite] = {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "versions": {name: version for name, version in _versions(suite) if version},
    }
    _write(path, noted)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=isinstance(value, dict)) + "\n", encoding="utf-8")


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _versions(suite: str) -> Iterator[tuple[str, str]]:
    yield "Python", platform.python_version()
    if suite != "embedded":
        yield "Apache Kafka", _of_jars()
    if suite in ("gateway", "shapes", "latency"):
        yield "OpenTelemetry Collector", _of_go("otelcol", rb"go\.opentelemetry\.io/collector/receiver/otlpreceiver\tv(\S+)\t")
    if suite == "shapes":
        yield "Rotel", _of_itself("rotel-agent")
    if suite == "remote_write":
        module = _of_go("prometheus", rb"\tgithub\.com/prometheus/prometheus\tv(\S+)\t")
        # The module of Prometheus 3.13.5 has the version 0.313.5.
        yield "Prometheus", re.sub(r"^0\.(\d)(\d\d)\.", r"\1.\2.", module) or _of_debian("prometheus")
        yield "VictoriaMetrics", _of_debian("victoria-metrics")
    if suite in ("writer", "embedded"):
        yield "ClickHouse's engine (chDB)", importlib.metadata.version("chdb-core")


def peer(name: str) -> str:
    """Return the command of a program: from $PEERS, which is newer than most systems' packages, else from the path."""
    return shutil.which(name, path=PEERS / "bin") or shutil.which(name) or name


def _of_jars() -> str:
    return next((jar.stem.rpartition("-")[2] for jar in PEERS.glob("kafka/libs/kafka-clients-*.jar")), "")


def _of_go(name: str, pattern: bytes) -> str:
    """Return the version of a module that a Go program was built with; "" if it is not found."""
    path = Path(peer(name))
    found = re.search(pattern, path.read_bytes()) if path.exists() else None
    return found[1].decode() if found else ""


def _of_itself(name: str) -> str:
    command = shutil.which(peer(name))
    if command is None:
        return ""
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout.strip().rpartition(" ")[2]


def _of_debian(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return ""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False)
    return done.stdout.partition("+")[0] if done.returncode == 0 else ""
