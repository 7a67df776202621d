"""A real Redis: redis-server, started in some milliseconds on a free port, without persistence.

Without it the tests are skipped, saying so; under CI they fail.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest
from support.ports import free_port
from support.processes import commands

START_TIMEOUT_S = 60


def program() -> str:
    """The path of redis-server. Skips, or fails under CI, where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        message = "no redis-server (Debian's package of this name): this test did not run"
        if os.environ.get("CI") and not os.environ.get("PEERS_OPTIONAL"):
            pytest.fail(message)
        pytest.skip(message)
    return found


class RedisServer:
    """One server. May be killed, and started again on the same port with nothing in it. Use: as a context."""

    def __init__(self, *options: str, tls: bool = False) -> None:
        """`options`: as on redis-server's command line; with `tls`, of its certificates."""
        self.port = free_port()
        self.url = f"{'rediss' if tls else 'redis'}://127.0.0.1:{self.port}/0"
        self._listen = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="infrasage-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        log = Path(self._directory.name) / "redis.log"
        arguments = (*self._listen, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._directory.name)
        with log.open("ab") as out:
            self._process = subprocess.Popen([program(), *arguments, *self._options], stdout=out, stderr=out)
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"redis-server did not start; it said:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.01)

    def kill(self) -> None:
        """kill -9, whatever state it is in: what it had counted is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """It takes connections and bytes, as the kernel does, and does not answer."""
        assert self._process is not None
        commands.pause(self._process.pid)

    def resume(self) -> None:
        assert self._process is not None
        commands.resume(self._process.pid)
