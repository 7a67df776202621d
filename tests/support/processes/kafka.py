"""A real Apache Kafka: one node (KRaft, no ZooKeeper), started from its published jars in about three seconds.

KAFKA_BOOTSTRAP names one that runs already; what needs a broker of its own (to kill it, or with TLS) starts one all the same.
The jars are in $PEERS/kafka/libs (default ~/.cache/infrasage-peers), fetched by Maven when they are not there. Without Java or
Maven the tests are skipped, saying so; under CI they fail.
"""

import atexit
import fcntl
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from support.ports import free_ports
from support.processes import commands

POM = Path(__file__).parents[2] / "kafka" / "pom.xml"
START_TIMEOUT_S = 180
MAVEN_TIMEOUT_S = 300

# -Xshare and C1 only: it starts in half the time, and no test runs long enough for the rest to pay.
_JAVA = ("java", "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_CONFIGURATION = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": "2",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    # A broker that was killed is not let in again before its session has ended. See `is_killed`.
    "broker.heartbeat.interval.ms": "100",
    "broker.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "8388608",
}


@functools.cache
def libraries() -> Path:
    """The directory of the jars. Skips, or fails under CI, where they can't be had."""
    peers = Path(os.environ.get("PEERS") or Path.home() / ".cache/infrasage-peers")
    directory = peers / "kafka" / "libs"
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if "java" not in missing and not directory.is_dir() and "mvn" not in missing:
        _fetch(directory)
    if "java" in missing or not directory.is_dir():
        message = f"no Kafka: {directory} is not there or java and mvn are not; this test did not run (PEERS={peers})"
        if os.environ.get("CI") and not os.environ.get("PEERS_OPTIONAL"):
            pytest.fail(message)
        pytest.skip(message)
    return directory


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Tests may run in several processes."""
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def usual_java() -> Sequence[str]:
    """With Kafka's classes as they are in memory once they are loaded, kept by a first run: so it takes half the time to start.
    What a later Java can't use of them it does not."""
    place = libraries().parent
    kept = place / "classes.jsa"
    with _alone(place):
        if not kept.exists():
            unfinished = place / "classes.unfinished"
            with tempfile.TemporaryDirectory(prefix="infrasage-kafka-") as directory:
                first = Kafka(Path(directory) / "kafka", java=(*_JAVA, f"-XX:ArchiveClassesAtExit={unfinished}"))
                try:
                    first.start()
                    first.end()
                finally:
                    first.close()
            unfinished.rename(kept)
    return (*_JAVA, f"-XX:SharedArchiveFile={kept}")


def _fetch(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _alone(directory.parent):
        if directory.is_dir():
            return
        unfinished = directory.with_name("libs.unfinished")
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S, check=False)
        if done.returncode == 0:
            unfinished.rename(directory)
        else:
            print(done.stdout + done.stderr)


class Kafka:
    """One broker with its data in `directory`. May be killed, and started again on the same ports."""

    def __init__(
        self,
        directory: Path,
        listeners: Mapping[str, str] | None = None,
        scram: Mapping[str, str] | None = None,
        java: Sequence[str] | None = None,
        cluster_id: str | None = None,
        is_killed: bool = True,
        **settings: str,
    ) -> None:
        """`listeners`: beside PLAINTEXT, from a listener's name to its protocol. `scram`: users and their passwords. `java`:
        with its options, instead of the usual one. `cluster_id`: it is one of several (support.processes.kafka_cluster).
        `is_killed`: False where no test kills it: then its controller does not fence it when it is late on a busy machine, and
        no leader epoch changes by itself. `settings`: more of its configuration, `__` for a dot."""
        if not is_killed:
            settings = {"broker__session__timeout__ms": "60000", **settings}
        self.directory = directory
        self._java = java
        self._cluster_id = cluster_id
        self.names = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        ports = free_ports(len(self.names) + 1)
        self.ports = dict(zip(self.names, ports, strict=False))
        self.controller_port = ports[-1]
        self._scram = scram or {}
        self._settings = {name.replace("__", "."): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def configure(self, settings: Mapping[str, str]) -> None:
        """More of its configuration, before its first start."""
        self._settings |= settings

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it, and return at once."""
        properties = self.directory / "server.properties"
        if not properties.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            properties.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
            users = [
                argument
                for name, password in self._scram.items()
                for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
                for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
            ]
            alone = ("--standalone",) if self._cluster_id is None else ()
            id_ = self._cluster_id or random_id()
            self._run("kafka.tools.StorageTool", "format", *alone, "-t", id_, "-c", str(properties), *users)
        with (self.directory / "server.log").open("ab") as log:
            command = self._command("kafka.Kafka", str(properties))
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment())

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Until it listens, which it does last."""
        assert self._process is not None
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                for port in self.ports.values():
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"Kafka did not start; it said:\n{self.log()[-4000:]}")
                time.sleep(0.05)

    def end(self) -> None:
        """As it ends when it is asked to."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(START_TIMEOUT_S) == 143, self.log()[-4000:]

    def kill(self) -> None:
        """kill -9; its data stays."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def pause(self) -> None:
        """It takes connections and bytes, as the kernel does, and does not answer."""
        commands.pause(self.pid())

    def resume(self) -> None:
        commands.resume(self.pid())

    def close(self) -> None:
        """Whatever state it is in, it is gone afterwards."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def _properties(self) -> dict[str, str]:
        addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()}
        controller = f"CONTROLLER://127.0.0.1:{self.controller_port}"
        protocols = {"CONTROLLER": "PLAINTEXT", **self.names}
        quorum = {} if self._cluster_id else {"controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller_port}"}
        return {
            **_CONFIGURATION,
            **quorum,
            "listeners": ",".join([*addresses.values(), controller]),
            "advertised.listeners": ",".join([*addresses.values(), controller]),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "log.dirs": str(self.directory / "data"),
            **self._settings,
        }

    def _run(self, *arguments: str) -> None:
        command = self._command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self._environment(), check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _command(self, *arguments: str) -> list[str]:
        return [*(self._java or usual_java()), "-cp", f"{libraries()}/*", *arguments]

    def _environment(self) -> dict[str, str]:
        # Its own tools complain about a log4j configuration that is not there; nothing reads it.
        return {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}


def random_id() -> str:
    """As Kafka writes a UUID; no leading dash, which its tool would take for an option."""
    import base64

    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


_shared: Final[list[tuple[Kafka, Path]]] = []


@functools.cache
def shared_bootstrap() -> str:
    """The address of a broker that all tests of this process share: KAFKA_BOOTSTRAP, or one started now. Nobody kills it."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        return given
    libraries()
    directory = Path(tempfile.mkdtemp(prefix="infrasage-kafka-"))
    kafka = Kafka(directory, is_killed=False)
    _shared.append((kafka, directory))
    atexit.register(close_shared)
    kafka.start()
    return kafka.bootstrap


def close_shared() -> None:
    """End the broker of `shared_bootstrap`, if there is one. Processes of pytest-xdist end without what atexit has: they call
    this themselves (tests/conftest.py)."""
    while _shared:
        kafka, directory = _shared.pop()
        kafka.close()
        shutil.rmtree(directory, ignore_errors=True)


def unique(name: str) -> str:
    """For topics and groups on a broker that others use too."""
    return f"{name}.{uuid.uuid4().hex[:12]}"
