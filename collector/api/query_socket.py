"""Answer commands on the running collector's Unix socket. POST /query has a SQL statement as its body, and is answered with
ClickHouse's result.

POST /dead-letters has the requests of the dlq commands (collector/dead_letters/service.py), and POST /tail those of the command
tail; both are answered with JSON. POST /confirm-audit confirms the findings of audits, for the actor in its body. POST
/snapshot takes or removes a snapshot for the command backup.

The socket is data_dir/query.sock. The protocol is HTTP/1.1, one request a connection, or HTTP/2:
`curl --unix-socket data/query.sock 'http://collector/query?format=CSV' --data 'SELECT 1'`.

Invariants:
1. The answer to a query contains everything that was acknowledged before it, or says how many messages it lacks
   (test_it_waits_until_what_was_acknowledged_is_stored).
2. Only the user that the collector runs as can connect: the socket has mode 0600 (test_only_the_owner_may_ask).
"""

import asyncio
import json
import math
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

import structlog
from starlette.types import Receive, Scope, Send

from collector.api.query_client import BEHIND_HEADER, PLAIN, SOCKET, TABLE_FORMAT, socket_address
from collector.audit.findings import AuditFindings, documents
from collector.broker.contract import BrokerError
from collector.config.receivers import Http
from collector.config.store import Query
from collector.config.values import size_text
from collector.dead_letters.service import DeadLetterService, InvalidRequest
from collector.query.live_records import Answering, TooManyWatches, question_of
from collector.receivers.http.server import HttpServer
from collector.runtime.errors import CannotRun
from collector.store.contract import Store, StoreError, StoreUnavailable
from collector.telemetry.metrics import Metrics

# More connections wait to be accepted.
_CONNECTIONS_MAX: Final = 1024
_DEFECT: Final = b"a defect of the collector; its log has the details"

log = structlog.get_logger(__name__)

# Waits at most the given seconds until every message is stored that was acknowledged before. Returns how many are not stored.
CaughtUp = Callable[[float], Awaitable[int]]


class SnapshotTaker(Protocol):
    """Takes and removes the snapshot of the data directory (collector/app/backup.py)."""

    async def take(self) -> Mapping[str, Any]:
        """Take a snapshot, and return its description. Raises CannotRun."""

    async def remove(self) -> None:
        """Remove the snapshot. Raises CannotRun."""


class QuerySocket:
    """The server of the socket, and its ASGI application. The process that holds the lock of `data_dir` has one."""

    def __init__(
        self,
        data_dir: Path,
        store: Store,
        caught_up: CaughtUp,
        settings: Query,
        desk: DeadLetterService,
        metrics: Metrics,
        live: Answering,
        snapshots: SnapshotTaker | None = None,
        findings: AuditFindings | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._store = store
        self._caught_up = caught_up
        self._desk = desk
        self._live = live
        self._snapshots = snapshots
        self._findings = findings
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrent_max)
        self._threads = ThreadPoolExecutor(settings.concurrent_max, "query")
        self._metrics = metrics
        self._server: HttpServer | None = None

    async def start(self) -> None:
        """Listen on the socket. Raises OSError."""
        path = self._data_dir / SOCKET
        path.unlink(missing_ok=True)  # a killed process left it: we hold the lock, so none is alive
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with socket_address(self._data_dir) as address:
            listener.bind(address)
        path.chmod(0o600)  # nobody can have connected yet, since it does not listen
        limits = Http(connections_max=_CONNECTIONS_MAX, body_timeout_s=self._settings.body_timeout_s)
        self._server = HttpServer(
            self,
            "",
            [],
            limits,
            self._metrics,
            unix_sockets=[listener],
            is_counted=False,
            takes_page_bodies=True,
            # The owner may read an answer slowly, page by page.
            answer_timeout_s=math.inf,
        )
        await self._server.start()

    async def close(self) -> None:
        """Take no more requests. Do not wait until clients have their answers."""
        if self._server is not None:
            server, self._server = self._server, None
            (self._data_dir / SOCKET).unlink(missing_ok=True)
            await server.stop(0)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as the ASGI application."""
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                sql = await self._read(receive)
            status, headers, body = await self._answer(scope, sql)
        except TimeoutError:
            status, headers, body = 408, {}, f"no whole query within {self._settings.body_timeout_s:g} s".encode()
        except _QueryRefused as refused:
            status, headers, body = refused.status, {}, str(refused).encode()
        except _ClientGone:
            return
        head = {"content-type": PLAIN, "content-length": str(len(body)), "connection": "close", **headers}
        raw = [(name.encode(), value.encode()) for name, value in head.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, receive: Receive) -> str:
        """Return the body of a request as text. Raises _QueryRefused, _ClientGone."""
        body = bytearray()
        has_more = True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            # An excess is read, but not kept, since a client that is still sending would not read an answer.
            if len(body) <= self._settings.sql_bytes_max:
                body += message.get("body", b"")
            has_more = message.get("more_body", False)
        if len(body) > self._settings.sql_bytes_max:
            limit = size_text(self._settings.sql_bytes_max)
            raise _QueryRefused(413, f"the query is longer than {limit} (query.sql_bytes_max)")
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise _QueryRefused(400, "the query is not UTF-8 text") from None

    async def _answer(self, scope: Scope, sql: str) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body for a request whose body is `sql`. Raises _QueryRefused."""
        path = scope["path"]
        if path not in ("/query", "/dead-letters", "/tail", "/snapshot", "/confirm-audit"):
            raise _QueryRefused(404, f"there is no {path} here; POST the statement to /query")
        if scope["method"] != "POST":
            raise _QueryRefused(405, "POST the statement")
        if path == "/dead-letters":
            return await self._answer_dead_letters(sql)
        if path == "/tail":
            return await self._answer_tail(sql)
        if path == "/snapshot":
            return await self._answer_snapshot(sql)
        if path == "/confirm-audit":
            return await self._answer_confirmation(sql)
        asked = parse_qs(scope["query_string"].decode())
        format_ = asked.get("format", [TABLE_FORMAT])[-1]
        async with self._slots:
            behind = await self._caught_up(0 if "now" in asked else self._settings.wait_s)
            try:
                body = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.query, sql, format_)
            except StoreUnavailable as error:
                return 503, {}, str(error).encode()
            except StoreError as error:
                return 400, {}, str(error).encode()
            except Exception:
                log.exception("query failed", sql=sql[:1000])
                return 500, {}, _DEFECT
        return 200, {BEHIND_HEADER: str(behind)}, body

    async def _answer_dead_letters(self, request: str) -> tuple[int, dict[str, str], bytes]:
        async with self._slots:
            try:
                answer = await self._desk.answer(json.loads(request))
            except (StoreError, BrokerError) as error:
                return 503, {}, str(error).encode()
            except InvalidRequest as error:
                return 400, {}, str(error).encode()
            except Exception:
                log.exception("dead letters failed", request=request[:1000])
                return 500, {}, _DEFECT
        return 200, {}, json.dumps(answer).encode()

    async def _answer_tail(self, request: str) -> tuple[int, dict[str, str], bytes]:
        try:
            asked = json.loads(request)
            question = question_of(
                asked["tenant"], asked["service"], asked["type"], asked["watch"], is_rejected=asked["rejected"]
            )
            answer = await self._live(question)
        except (KeyError, TypeError, ValueError) as error:
            return 400, {}, str(error).encode()
        except TooManyWatches as error:
            return 503, {}, str(error).encode()
        return 200, {}, json.dumps({"records": answer.records, "left_out": answer.left_out}).encode()

    async def _answer_confirmation(self, actor: str) -> tuple[int, dict[str, str], bytes]:
        if self._findings is None:
            raise _QueryRefused(404, "this collector runs no audits")
        try:
            confirmed = await asyncio.to_thread(self._findings.confirm_all, actor)
        except StoreError as error:
            return 503, {}, str(error).encode()
        except Exception:
            log.exception("a confirmation failed")
            return 500, {}, _DEFECT
        return 200, {}, json.dumps(documents(confirmed)).encode()

    async def _answer_snapshot(self, action: str) -> tuple[int, dict[str, str], bytes]:
        if self._snapshots is None or action not in ("take", "remove"):
            raise _QueryRefused(400, f"cannot {action} a snapshot")
        try:
            answer = await (self._snapshots.take() if action == "take" else self._snapshots.remove())
        except CannotRun as error:
            return 503, {}, str(error).encode()
        except Exception:
            log.exception("a snapshot failed")
            return 500, {}, _DEFECT
        return 200, {}, json.dumps(answer).encode()


class _QueryRefused(Exception):
    """The request is refused with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status: Final = status


class _ClientGone(Exception):
    """The client disconnected before its request was complete."""
