"""The ClickHouse server of the tests: the bridge, in a process of its own, or the server at CLICKHOUSE_URL.

With CLICKHOUSE_URL (http://HOST:PORT; CLICKHOUSE_USER, CLICKHOUSE_PASSWORD) each server is a new database on it, dropped in the
end; CLICKHOUSE_CLUSTER makes it a cluster's. Faults are the bridge's alone: tests that need them run on the bridge, always.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from support.processes.commands import environment
from support.store_templates import copy_template

from collector.store.clickhouse import ClickHouseStore
from collector.store.options import RequestedTables, StoreOptions

USER, PASSWORD = "infrasage", "s3cret pässword"
# In a bridge's directory: what the engine keeps (clickhouse_bridge.py).
DATA = "bridge"
# The suites are about meaning, not about power cuts.
OPTIONS = StoreOptions(RequestedTables(fsync=False))


@dataclass
class Server:
    """Where a server is, and as whom to come."""

    url: str
    user: str = USER
    password: str = PASSWORD
    database: str = "telemetry"
    cluster: str = ""
    ca_file: Path | None = None

    def store(self, options: StoreOptions = OPTIONS, **changes: Any) -> ClickHouseStore:
        """Not connected yet."""
        given = {
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "cluster": self.cluster,
            "ca_file": self.ca_file,
            "connect_timeout_s": 5,
            "request_timeout_s": 60,
            **changes,
        }
        return ClickHouseStore.server(given.pop("url", self.url), options, **given)


@dataclass
class Bridge(Server):
    """The bridge, which can be stopped, killed and started again at the same place. `has_tables`: it begins with those of
    OPTIONS, in the database `telemetry`, as an earlier start of the collector leaves them."""

    directory: Path = Path()
    has_tables: bool = True
    certificate: Path | None = None
    key: Path | None = None
    port: int = 0
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def start(self) -> None:
        if self.has_tables and not (self.directory / DATA).exists():
            copy_template("server", _make_tables, self.directory / DATA)
        arguments = [str(self.directory), "--port", str(self.port), "--user", self.user, "--password", self.password]
        if self.certificate:
            arguments += ["--certificate", str(self.certificate), "--key", str(self.key)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.processes.clickhouse_bridge", *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.strip().isdecimal(), f"the bridge ended with {self.process.wait()}"
        self.port = int(said)
        self.url = f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL, as every end of it is."""
        if self.process is not None:
            self.process.kill()
            self.wait()

    def wait(self) -> None:
        """Until it has died."""
        assert self.process is not None
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def faults(self, *faults: dict[str, object]) -> None:
        """See Fault in clickhouse_bridge.py. They take the place of those before."""
        with urlopen(Request(f"{self.url}/bridge/faults", json.dumps(faults).encode(), method="POST")):
            pass

    def release(self) -> None:
        """Those that are held go on."""
        with urlopen(Request(f"{self.url}/bridge/release", method="POST")):
            pass

    def is_busy(self) -> bool:
        """Whether a request is under way, though its client may have gone."""
        return any(request["under_way"] for request in self.seen()["requests"])

    def seen(self) -> dict[str, Any]:
        """`requests`, each with `statement` (its beginning), `settings` (of an insert), `parameters`, `uri_bytes`, `under_way`;
        and the number of `connections`."""
        with urlopen(f"{self.url}/bridge/seen") as answer:
            told: dict[str, Any] = json.load(answer)
            return told


def _make_tables(template: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="infrasage-stores-") as directory:
        with bridge(Path(directory), has_tables=False) as made, closing(made.store()) as store:
            store.apply_schema()
        shutil.move(Path(directory) / DATA, template)


@contextmanager
def bridge(directory: Path, **options: Any) -> Iterator[Bridge]:
    """A bridge whose data is in `directory`."""
    made = Bridge(url="", directory=directory, **options)
    made.start()
    try:
        yield made
    finally:
        made.kill()


@contextmanager
def server(directory: Path) -> Iterator[Server]:
    """The server at CLICKHOUSE_URL, if there is one, else a bridge."""
    url = os.environ.get("CLICKHOUSE_URL")
    if not url:
        with bridge(directory) as made:
            yield made
        return
    found = Server(
        url,
        os.environ.get("CLICKHOUSE_USER", "default"),
        os.environ.get("CLICKHOUSE_PASSWORD", ""),
        f"infrasage_test_{uuid.uuid4().hex}",
        os.environ.get("CLICKHOUSE_CLUSTER", ""),
    )
    try:
        yield found
    finally:
        _drop(found)


def _drop(found: Server) -> None:
    drop = f"DROP DATABASE IF EXISTS {found.database}" + (f" ON CLUSTER '{found.cluster}'" if found.cluster else "") + " SYNC"
    headers = {"X-ClickHouse-User": found.user, "X-ClickHouse-Key": found.password}
    with urlopen(Request(found.url, drop.encode(), headers, method="POST")):
        pass
