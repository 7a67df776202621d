"""A bridge: as much of ClickHouse's HTTP interface as clickhouse_connect needs, over the embedded engine.

It is NOT a ClickHouse server, and says so in every answer (header Server). The engine is the same code as a server's; what is
ours is HTTP: settings and queries in the URL, bodies of inserts, users, error answers, sessions. What a server has beyond the
engine (Keeper, replicas, clusters, quotas, limits on requests) is not here: CLICKHOUSE_URL runs the same tests on a server.

`python -m support.processes.clickhouse_bridge DIRECTORY [--port N] [--user NAME --password TEXT] [--certificate FILE --key
FILE]` prints its port once it listens. One engine a process: so it is run as one (tests/support/processes/clickhouse_server.py
does).

POST /bridge/faults takes a list of faults for requests to come (see Fault); POST /bridge/release lets go on what is held;
GET /bridge/seen tells which came, and which are still under way.
"""

import argparse
import base64
import json
import os
import re
import signal
import ssl
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb

# Parameters that are for the HTTP interface, or for a server; the engine would refuse them as settings.
_NOT_SETTINGS = {
    "query", "database", "user", "password", "session_id", "session_timeout", "session_check", "query_id", "quota_key",
    "default_format", "wait_end_of_query", "buffer_size", "compress", "decompress", "client_protocol_version", "role",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression",
    "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip
_INSERT = re.compile(
    rb"\s*INSERT\s+INTO\s+(?P<table>[^\s(]+(?:\s*\([^)]*\))?)\s+"
    rb"(?P<settings>SETTINGS\s(?:'(?:[^'\\]|\\.)*'|[^'])+?\s)?FORMAT\s+(?P<format>\w+)[ ;]*(?:\r?\n|\Z)"
)
_SETTING = re.compile(r"(\w+) = (?:'((?:[^'\\]|\\.)*)'|(\d+))")
_CODE = re.compile(r"Code: (\d+)")
# As src/Server/HTTP/exceptionCodeToHTTPStatus.cpp has it, as far as our tests go; every other error is a 500.
_STATUS = {194: 401, 192: 403, 193: 403, 516: 403, 60: 404, 81: 404, 46: 404, 47: 404, 73: 404, 115: 404, 62: 400, 117: 400,
           53: 400, 159: 408, 48: 501, 209: 503}  # fmt: skip
_SERVER = "a test bridge over chDB, not a ClickHouse server"


@dataclass
class Fault:
    """What happens to the next `times` requests whose statement begins with `on`, `when` they are executed.

    `do`: `error` answers `code` and `text` in the engine's place; `drop` closes the connection; `pass` is none; `hold`
    waits until it is released; `die` kills the bridge, `seconds` later; `page` answers 200 with a page that is nobody's answer.
    """

    do: str
    on: str = "INSERT"
    when: str = "before"
    times: int = 1
    seconds: float = 0.0
    code: int = 0
    text: str = ""


class Failed(Exception):
    """An answer with an error: `Code: N. DB::Exception: …`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = _CODE.search(text)
        self.text = text[found.start() :] if found else text
        self.code = int(found[1]) if found else 1002


class Dropped(Exception):
    """The connection ends here."""


class Engine:
    """The embedded engine, with a connection of its own for each request, as a server has no memory between two either."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "bridge")
        self.directory = directory
        self._first = self._connection()  # the engine lives as long as a connection does
        self.version = self._first.query("SELECT version()", "TabSeparated").bytes().decode().strip()
        self._sessions: dict[str, tuple[Any, threading.Lock]] = {}

    def run(self, statement: bytes, parameters: dict[str, str], form: str) -> bytes:
        with self._session(parameters.get("session_id")) as connection:
            try:
                return self._run(connection, statement, parameters, form)
            except Exception as error:
                raise Failed(str(error)) from error

    def _run(self, connection: Any, statement: bytes, parameters: dict[str, str], form: str) -> bytes:
        if database := parameters.get("database"):
            quoted = database.replace("\\", "\\\\").replace("`", "\\`")
            connection.query(f"USE `{quoted}`", "TabSeparated")
        settings = {name: value for name, value in parameters.items() if name not in _NOT_SETTINGS and name[:6] != "param_"}
        if "query_id" in parameters:
            settings.setdefault("log_comment", parameters["query_id"])  # the engine takes no name for a query: this will do
        # Last, since it forbids the others.
        for name in sorted(settings, key=lambda name: name == "readonly"):
            value = settings[name].replace("\\", "\\\\").replace("'", "\\'")
            connection.query(f"SET {name} = '{value}'", "TabSeparated")
        bound = {name[6:]: value for name, value in parameters.items() if name[:6] == "param_"}
        if insert := _INSERT.match(statement):
            with tempfile.NamedTemporaryFile(dir=self.directory) as file:
                file.write(memoryview(statement)[insert.end() :])
                file.flush()
                into, format_ = insert["table"].decode(), insert["format"].decode()
                settings_ = (insert["settings"] or b"").decode()
                connection.query(f"INSERT INTO {into} FROM INFILE '{file.name}' {settings_}FORMAT {format_}", "TabSeparated")
            return b""
        text = statement.decode()
        if text.lstrip().upper().startswith("KILL QUERY"):
            text = text.replace("query_id", "Settings['log_comment']")
        return bytes(connection.query(text, form, params=bound).bytes())

    def _connection(self) -> Any:
        return chdb.connect(self.path)

    @contextmanager
    def _session(self, name: str | None) -> Iterator[Any]:
        if name is None:
            connection = self._connection()
            try:
                yield connection
            finally:
                connection.close()
            return
        if name not in self._sessions:
            self._sessions[name] = self._connection(), threading.Lock()
        connection, lock = self._sessions[name]
        if not lock.acquire(blocking=False):
            raise Failed(f"Code: 373. DB::Exception: Session {name} is locked by a concurrent client. (SESSION_IS_LOCKED)")
        try:
            yield connection
        finally:
            lock.release()


class Bridge(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, engine: Engine, user: str, password: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = engine
        self.user = user
        self.password = password
        self.faults: list[Fault] = []
        self.released = threading.Event()
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.connections = 0

    def fault(self, statement: bytes, when: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.when == when and statement.lstrip()[: len(fault.on)].upper() == fault.on.encode():
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go; that is what it is for."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Bridge

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away in the middle of it
            self.close_connection = True
            return
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        try:
            url = urlsplit(self.path)
            if url.path == "/ping":
                self._send(200, b"Ok.\n")
            elif url.path == "/bridge/faults":
                with self.server.lock:
                    self.server.faults = [Fault(**one) for one in json.loads(body)]
                    self.server.released.set()
                    self.server.released = threading.Event()
                self._send(200, b"")
            elif url.path == "/bridge/release":
                self.server.released.set()
                self._send(200, b"")
            elif url.path == "/bridge/seen":
                with self.server.lock:
                    seen = {"requests": self.server.seen, "connections": self.server.connections}
                    self._send(200, json.dumps(seen).encode())
            else:
                self._query(dict(parse_qsl(url.query, keep_blank_values=True)), body)
        except Dropped:
            self.close_connection = True
            self.connection.close()

    def _query(self, parameters: dict[str, str], body: bytes) -> None:
        query = parameters.get("query", "").encode()
        statement = b"\n".join([query, body]) if query else body
        name = parameters.get("query_id") or str(uuid.uuid4())
        with self.server.lock:
            head = statement[:80].decode(errors="replace")
            seen = {"statement": head, "settings": _settings(statement), "parameters": parameters, "uri_bytes": len(self.path)}
            seen["under_way"] = True
            self.server.seen.append(seen)
        try:
            self._execute(statement, parameters, name)
        finally:
            seen["under_way"] = False

    def _execute(self, statement: bytes, parameters: dict[str, str], name: str) -> None:
        try:
            self._authenticate(parameters)
            if not statement.strip():
                self._send(200, b"Ok.\n")
                return
            self._strike(statement, "before")
            form = parameters.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
            answer = self.server.engine.run(statement, parameters, form)
            self._strike(statement, "after")
        except Failed as error:
            text = f"{error.text} (version {self.server.engine.version})\n"
            self._send(_STATUS.get(error.code, 500), text.encode(), {"X-ClickHouse-Exception-Code": str(error.code)})
        else:
            summary = {
                "X-ClickHouse-Query-Id": name,
                "X-ClickHouse-Summary": '{"read_rows":"0"}',
                "X-ClickHouse-Timezone": "UTC",
            }
            self._send(200, answer, summary)

    def _strike(self, statement: bytes, when: str) -> None:
        fault = self.server.fault(statement, when)
        if fault is None or fault.do == "pass":
            return
        if fault.do == "drop":
            raise Dropped
        if fault.do == "hold":
            self.server.released.wait()
        elif fault.do == "die":
            threading.Timer(fault.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            if fault.seconds == 0:
                time.sleep(60)
        elif fault.do == "page":
            self._send(200, b"<html>It works!</html>", {"Connection": "close"})  # else the next might go to what is closing
            raise Dropped
        else:
            raise Failed(f"Code: {fault.code}. DB::Exception: {fault.text}")

    def _authenticate(self, parameters: dict[str, str]) -> None:
        kind, _, basic = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            user, _, password = base64.b64decode(basic).decode().partition(":")
        else:
            user = self.headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
            password = self.headers.get("X-ClickHouse-Key") or parameters.get("password") or ""
        if (user, password) != (self.server.user, self.server.password):
            raise Failed(
                f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)"
            )

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def version_string(self) -> str:
        return _SERVER

    def log_message(self, *_: object) -> None:
        """Said by /bridge/seen."""


def _settings(statement: bytes) -> dict[str, str]:
    """Those that an insert itself says."""
    found = _INSERT.match(statement)
    clause = (found["settings"] or b"").decode() if found else ""
    return {name: re.sub(r"\\(.)", r"\1", text) or number for name, text, number in _SETTING.findall(clause)}


def main() -> None:
    parser = argparse.ArgumentParser(description=_SERVER)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(given.directory)  # where the engine keeps the formats that come with a query
    bridge = Bridge(given.port, Engine(given.directory.resolve()), given.user, given.password)
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate, given.key)
        bridge.socket = context.wrap_socket(bridge.socket, server_side=True)
    print(bridge.server_port, flush=True)
    bridge.serve_forever()


if __name__ == "__main__":
    main()
