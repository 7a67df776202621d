"""nginx and HAProxy in front of running collectors, by the configurations of docs/operate/proxies.md; and senders through them,
which know what became of each record."""

import contextlib
import csv
import gzip
import http.client
import os
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import grpc
import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.ports import free_ports
from support.processes.program import Program, require_peer
from support.waiting import until

PAGE = Path(__file__).parents[3] / "docs" / "operate" / "proxies.md"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
# The page's collectors, by their hosts.
_HOSTS = ("10.0.0.1", "10.0.0.2")
_AGAIN_S = 0.05
# Between a sender's requests.
_PAUSE_S = 0.03


class Collector(Protocol):
    """Where a collector listens."""

    @property
    def otlp_http_port(self) -> int: ...

    @property
    def grpc_port(self) -> int: ...


class Ports(NamedTuple):
    """Where the receivers of a test listen."""

    otlp_http_port: int
    grpc_port: int


class Front(NamedTuple):
    """The ports of one, which are the page's 4318, 4319 and 4317."""

    http: int
    h2c: int
    grpc: int
    downgrade: int
    """Takes HTTP/2, and hands it on as HTTP/1.1."""
    admin: Path | None = None
    """HAProxy's own socket."""

    def sees_all(self) -> bool:
        """Whether every collector is in use, as far as the front looks."""
        if self.admin is None:
            return True
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.admin))
            asked.sendall(b"show stat -1 4 -1\n")  # servers
            said = b"".join(iter(lambda: asked.recv(65_536), b"")).decode()
        return all(row["status"] == "UP" for row in csv.DictReader(said.removeprefix("# ").splitlines()))


def configuration(language: str) -> str:
    """The page's block of that language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(block)


def _filled_in(text: str, collectors: Sequence[Collector], front: Front) -> str:
    """The same on this machine's ports. The page's second collector is left out where there is one."""
    for host, collector in zip(_HOSTS, collectors, strict=False):
        text = text.replace(f"{host}:4317", f"127.0.0.1:{collector.grpc_port}")
        text = text.replace(f"{host}:4318", f"127.0.0.1:{collector.otlp_http_port}")
        text = re.sub(rf"(127.0.0.1:{collector.grpc_port} .* port) 4318", rf"\1 {collector.otlp_http_port}", text)
    text = "".join(line for line in text.splitlines(keepends=True) if not any(host in line for host in _HOSTS))
    for port, ours in zip((4318, 4319, 4317, 4320), front[:4], strict=True):
        text = re.sub(rf"(listen |bind ):?{port}\b", rf"\g<1>127.0.0.1:{ours}", text)
    return text


def _with_downgrade(text: str) -> str:
    """nginx's configuration with its server for HTTP/1.1 once more, for HTTP/2."""
    (block,) = re.findall(r"^  server \{\n    listen 4318;\n.*?^  \}\n", text, re.DOTALL | re.MULTILINE)
    return text.replace(block, block + str(block).replace("listen 4318", "listen 4320 http2"))


@contextlib.contextmanager
def nginx(place: Path, *collectors: Collector, change: Callable[[str], str] = str) -> Iterator[Front]:
    """`change` is made to the page's configuration. Nothing listens on its port for h2c: nginx speaks HTTP/2 to gRPC alone."""
    command = require_peer("nginx")
    front = Front._make([*free_ports(4), None])
    place.mkdir()
    settings = _filled_in(change(_with_downgrade(configuration("nginx"))), collectors, front)
    kept = "".join(f"{of}_temp_path {place}/{of};" for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    settings = settings.replace("http {", f"http {{ access_log off; {kept}", 1).replace(
        "worker_processes auto", "worker_processes 1"
    )
    # Its workers must be able to write where the master made the directories.
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(f"{user} daemon off; pid {place}/pid; error_log {place}/error.log;\n{settings}")
    with _running([command, "-p", place, "-e", f"{place}/error.log", "-c", place / "nginx.conf"], place, front.grpc):
        yield front


@contextlib.contextmanager
def haproxy(place: Path, *collectors: Collector, change: Callable[[str], str] = str) -> Iterator[Front]:
    command = require_peer("haproxy")
    front = Front._make([*free_ports(4), place / "admin"])
    place.mkdir()
    downgrade = "\nfrontend downgrade\n  bind :4320 proto h2\n  default_backend otlp_http\n"
    settings = _filled_in(change(configuration("haproxy") + downgrade), collectors, front)
    (place / "haproxy.cfg").write_text(f"global\n  stats socket {front.admin}\n{settings}")
    with _running([command, "-db", "-f", place / "haproxy.cfg"], place, front.grpc):
        yield front


@contextlib.contextmanager
def _running(command: list[Path | str], place: Path, port: int) -> Iterator[None]:
    output = place / "output"
    with output.open("wb") as said:
        process = subprocess.Popen([*map(str, command)], stdout=said, stderr=said)
    try:
        until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, output.read_text()
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


# Senders.


def logs(run: str, records: Sequence[str], padding: int = 0) -> bytes:
    """A request of log records whose bodies are these, of the service `run`."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = run
    scope = resource.scope_logs.add()
    now = time.time_ns()
    for record in records:
        made = scope.log_records.add(time_unix_nano=now)
        made.body.string_value = record
        if padding:
            made.attributes.add(key="padding").value.string_value = "x" * padding
    return request.SerializeToString()


class Failed(Exception):
    """The request was not accepted, as far as its sender can know."""


class Http1:
    """A kept connection to a front."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, body: bytes, *, chunked: bool = False, zipped: bool = False) -> None:
        """Raises Failed."""
        headers = {"Content-Type": "application/x-protobuf"}
        if zipped:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        pieces = (body[at : at + 9000] for at in range(0, len(body), 9000)) if chunked else body
        try:
            self._connection.request("POST", "/v1/logs", pieces, headers, encode_chunked=chunked)
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Failed(repr(error)) from error
        if answer.status != 200:
            raise Failed(f"{answer.status} {said[:200]!r}")

    def close(self) -> None:
        self._connection.close()


class H2c:
    """A connection in HTTP/2 without TLS, by prior knowledge."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(http1=False, http2=True, timeout=30, base_url=f"http://127.0.0.1:{port}")

    def send(self, body: bytes) -> None:
        """Raises Failed."""
        try:
            answer = self._client.post("/v1/logs", content=body, headers={"content-type": "application/x-protobuf"})
        except httpx.HTTPError as error:
            raise Failed(repr(error)) from error
        if answer.status_code != 200:
            raise Failed(f"{answer.status_code} {answer.text[:200]!r}")

    def close(self) -> None:
        self._client.close()


class Grpc:
    """A channel to a front."""

    def __init__(self, port: int) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self._export: Any = self._channel.unary_unary(LOGS)

    def send(self, body: bytes) -> None:
        """Raises Failed."""
        try:
            self._export(body, timeout=30)
        except grpc.RpcError as error:
            raise Failed(f"{error.code()} {error.details()}") from error

    def close(self) -> None:
        self._channel.close()


Client = Http1 | H2c | Grpc


class Sender(threading.Thread):
    """Sends small requests until stopped; what fails is sent again, with the same records, until it is accepted."""

    def __init__(self, run: str, client: Client, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.accepted: set[str] = set()
        self.sent_again: set[str] = set()
        self.failures: list[str] = []
        self._run = run
        self._client = client
        self._stops = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stops.is_set():
            records = [f"{self.name} {number} {index}" for index in range(10)]
            number += 1
            while True:
                try:
                    self._client.send(logs(self._run, records, padding=100))
                except Failed as failed:
                    self.failures.append(str(failed))
                    self.sent_again.update(records)
                    time.sleep(_AGAIN_S)
                else:
                    self.accepted.update(records)
                    break
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """And wait until its last request is accepted."""
        self._stops.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} has not come to its end: {self.failures[-3:]}"
        self._client.close()


class Traffic:
    """Senders through every way into the fronts, while it is entered."""

    def __init__(self, run: str, ways: dict[str, Client]) -> None:
        self.senders = [Sender(run, client, name) for name, client in ways.items()]
        self._run = run

    def __enter__(self) -> Self:
        for sender in self.senders:
            sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        for sender in self.senders:
            sender.stop()

    def flows(self) -> None:
        """Return when each of them has had ten more requests accepted."""
        before = {sender.name: len(sender.accepted) for sender in self.senders}
        until(lambda: all(len(sender.accepted) >= before[sender.name] + 100 for sender in self.senders))

    def failures(self) -> dict[str, list[str]]:
        """By sender, of those that have any."""
        return {sender.name: sender.failures for sender in self.senders if sender.failures}

    def check(self, *collectors: Program) -> None:
        """Everything accepted is stored; nothing twice but what was sent again; nothing else is stored."""
        accepted = set[str]().union(*(sender.accepted for sender in self.senders))
        sent_again = set[str]().union(*(sender.sent_again for sender in self.senders))
        stored = stored_in(self._run, collectors)
        assert accepted - stored.keys() == set(), "lost"
        assert stored.keys() - accepted == set(), "of nobody"
        assert {record for record, times in stored.items() if times > 1} <= sent_again, "doubled"


def ways(nginx_: Front, haproxy_: Front) -> dict[str, Client]:
    """All that there are into both, by what is spoken on each side."""
    return {
        "nginx, HTTP/1.1": Http1(nginx_.http),
        "nginx, HTTP/1.1, another": Http1(nginx_.http),
        "nginx, gRPC": Grpc(nginx_.grpc),
        "haproxy, HTTP/1.1": Http1(haproxy_.http),
        "haproxy, HTTP/1.1, another": Http1(haproxy_.http),
        "haproxy, HTTP/2": H2c(haproxy_.h2c),
        "haproxy, gRPC": Grpc(haproxy_.grpc),
    }


def stored_in(run: str, collectors: Sequence[Program]) -> Counter[str]:
    """How often each record is. A query waits for what was accepted before it."""
    stored: Counter[str] = Counter()
    for collector in collectors:
        sql = f"SELECT Body AS body, count() AS times FROM otel_logs WHERE ServiceName = '{run}' GROUP BY body LIMIT 1000000"
        for row in collector.query(sql):
            stored[row["body"]] += int(row["times"])
    return stored
