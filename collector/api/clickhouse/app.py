"""The application behind store.http_port.

Invariants:
1. No query is answered without a key that may read. A key reads its own tenant's rows; one of scope admin reads all. Without
   a key, only /ping, /replicas_status, a request without a query, and errors are answered.
   (test_a_key_reads_its_own_tenant, test_without_a_key_that_reads_nothing_is_answered)
2. Nothing is written, whatever the method. (test_nothing_is_written)
3. An error has ClickHouse's code in X-ClickHouse-Exception-Code, and its text in the body, as drivers expect.
   (test_errors_are_as_clickhouse_sends_them)
4. An answer is complete before its first byte is sent, so no error comes in the middle of one.
   (test_errors_are_as_clickhouse_sends_them)
5. The body of a query is read only with a key. A tenant has at most half as many unanswered queries as there may be
   connections; more are refused at their heads. (test_who_sends_no_query_leaves_room_for_others)
6. A tenant that does not read an answer keeps no other tenant from its own, even behind the same proxy.
   (test_an_answer_that_is_not_read_keeps_none_from_another_tenant)
"""

import asyncio
import base64
import binascii
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import parse_qsl
from uuid import uuid4

import structlog
from starlette.types import Receive, Scope, Send

from adapters.errors import RequestRefused
from collector.api.clickhouse.frames import encoded, framed
from collector.api.clickhouse.hello import hello, is_hello
from collector.api.clickhouse.turns import QueryOverdue, QueryTurns
from collector.receivers.http.page_gate import CALLER
from collector.store.contract import Answered, Question, StoreError, StoreUnavailable
from collector.tenancy.access import Access, key_of

log = structlog.get_logger(__name__)

_DATABASE: Final = "default"
_CODE: Final = re.compile(r"Code: (\d+)\.")
# The HTTP statuses of ClickHouse's codes, as its server has them. Other codes are 500.
_STATUSES: Final = {
    **dict.fromkeys((36, 43, 62, 27, 26, 6, 38, 41, 53, 69, 70, 72, 117, 130, 456, 457), 400),
    **dict.fromkeys((164, 497, 516), 403),
    **dict.fromkeys((46, 47, 60, 81, 82, 115), 404),
    159: 408,
    209: 408,
    48: 501,
    202: 503,
}
# The parameters of the request itself. All others are settings, or parameters of the query: `param_…`.
_OF_THE_REQUEST: Final = frozenset(
    {
        *("query", "database", "default_format", "user", "password", "query_id", "quota_key", "session_id", "session_check"),
        *("session_timeout", "compress", "decompress", "client_protocol_version", "enable_http_compression"),
        *("http_zlib_compression_level", "network_compression_method", "buffer_size", "stacktrace", "role", "close_session"),
    }
)
_TYPES: Final = (
    (re.compile(r"JSON\w*EachRow\w*|NDJSON|JSONLines"), "application/x-ndjson; charset=UTF-8"),
    (re.compile(r"\w*JSON\w*"), "application/json; charset=UTF-8"),
    (re.compile(r"CSV\w*"), "text/csv; charset=UTF-8; header=absent"),
    (re.compile(r"TSV\w*|TabSeparated\w*"), "text/tab-separated-values; charset=UTF-8"),
    (re.compile(r"Native|RowBinary\w*|Parquet|Arrow\w*|ORC|Avro|MsgPack|RawBLOB"), "application/octet-stream"),
)


class ClickHouseError(Exception):
    """The request is answered with an error in the form of ClickHouse."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")


class _QueryRequest(NamedTuple):
    """A request with a query."""

    sql: str
    format: str
    settings: dict[str, str]
    parameters: dict[str, str]
    query_id: str
    client_revision: int
    frames: str | None
    """The compression method of ClickHouse's own frames; None if the answer has no frames."""
    accept_encoding: str


class _Answer(NamedTuple):
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}


class ClickHouseApi:
    """An ASGI application. Call `close` at the end."""

    def __init__(
        self,
        access: Access,
        answer: Callable[[Question], Answered],
        caught_up: Callable[[float], Awaitable[int]],
        *,
        version: str,
        timezone: str,
        sql_bytes_max: int,
        turns: QueryTurns,
        connections_max: int,
        wait_s: float,
        body_timeout_s: float,
    ) -> None:
        """`answer` is the store's, and blocks. `caught_up` waits at most the given seconds until every acknowledged message is
        stored. `version` and `timezone` are the engine's. `wait_s` is how long a query waits for that. `close` closes
        `turns`."""
        self._access: Final = access
        self._answer: Final = answer
        self._caught_up: Final = caught_up
        self._version: Final = version
        self._timezone: Final = timezone
        self._sql_bytes_max: Final = sql_bytes_max
        self._wait_s: Final = wait_s
        self._body_timeout_s: Final = body_timeout_s
        self._turns: Final = turns
        self._open: Final[Counter[str | None]] = Counter()  # queries without an answer, by tenant
        self._open_max: Final = max(1, connections_max // 2)

    @property
    def open_queries(self) -> int:
        """Return how many queries are being read, are waiting, or are running."""
        return self._open.total()

    def close(self) -> None:
        """Take no more queries. Running ones end with the store."""
        self._turns.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace"))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query_id = query.get("query_id") or str(uuid4())
        try:
            answer = await self._answered(scope, query, headers, query_id, receive)
        except ClickHouseError as refused:
            answer = self._error(str(refused))
        except QueryOverdue as error:
            answer = self._error(f"Code: 159. DB::Exception: {error} (TIMEOUT_EXCEEDED)")
        except StoreUnavailable as error:
            answer = self._error(f"Code: 202. DB::Exception: {error} (TOO_MANY_SIMULTANEOUS_QUERIES)")
        except StoreError as error:
            answer = self._error(str(error) if _CODE.match(str(error)) else f"Code: 164. DB::Exception: {error} (READONLY)")
        except Exception:
            log.exception("a query by ClickHouse's protocol failed", query_id=query_id)
            answer = self._error("Code: 49. DB::Exception: a defect of the collector; its log has the details (LOGICAL_ERROR)")
        summary = {"read_rows": "0", "read_bytes": "0", "written_rows": "0", "written_bytes": "0", "total_rows_to_read": "0"}
        summary |= {"result_bytes": str(len(answer.body)), "elapsed_ns": str(int((time.monotonic() - began) * 1e9))}
        sent = {
            "content-type": "text/plain; charset=UTF-8",
            "content-length": str(len(answer.body)),
            "x-clickhouse-server-display-name": "infrasage-collector",
            "x-clickhouse-query-id": re.sub(r"[^\x21-\x7e]", "_", query_id)[:100],
            "x-clickhouse-timezone": self._timezone,
            "x-clickhouse-summary": json.dumps(summary),
            **answer.headers,
        }
        raw = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _answered(
        self, scope: Scope, query: Mapping[str, str], headers: Mapping[str, str], query_id: str, receive: Receive
    ) -> _Answer:
        """Return the answer to a request. Raises ClickHouseError, StoreError, QueryOverdue."""
        path, method = scope["path"], scope["method"]
        if path in ("/ping", "/replicas_status"):
            return _Answer(b"Ok.\n")
        if path != "/":
            return _Answer(f"There is no handle {path}. Use / or /ping for health checks.\n".encode(), 404)
        if method not in ("GET", "POST", "HEAD"):
            raise ClickHouseError(48, "NOT_IMPLEMENTED", f"{method} is not supported: use GET or POST")
        if method in ("GET", "HEAD") and "query" not in query and not _has_body(headers):
            return _Answer(b"Ok.\n")
        tenant = self._tenant(query, headers)
        scope[CALLER] = tenant
        with self._place(tenant):
            return await self._queried(query, headers, query_id, receive, tenant)

    async def _queried(
        self, query: Mapping[str, str], headers: Mapping[str, str], query_id: str, receive: Receive, tenant: str | None
    ) -> _Answer:
        """Return the answer to a query of `tenant`; None: of a key that reads all. Raises ClickHouseError, StoreError,
        QueryOverdue."""
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await self._body(receive)
        except TimeoutError:
            raise ClickHouseError(
                209, "SOCKET_TIMEOUT", f"no whole query within {self._body_timeout_s:g} s (query.body_timeout_s)"
            ) from None
        request = self._read(query, headers, query_id, body)
        if is_hello(request.sql, request.format, request.client_revision):
            answered = Answered(hello(self._version, self._timezone, request.client_revision), "Native")
        else:
            await self._caught_up(self._wait_s)
            question = Question(request.sql, request.format, tenant, request.settings, request.parameters)
            answered = await self._turns.run(tenant, query_id, partial(self._answer, question))
        sent = {"x-clickhouse-format": answered.format, "content-type": _type_of(answered.format)}
        if request.frames is not None:
            return _Answer(await asyncio.to_thread(framed, answered.body, request.frames), 200, sent)
        compressed, encoding = await asyncio.to_thread(encoded, answered.body, request.accept_encoding)
        return _Answer(compressed, 200, sent | ({"content-encoding": encoding} if encoding else {}))

    @contextmanager
    def _place(self, tenant: str | None) -> Iterator[None]:
        """Count a query from its head to its answer. Raises ClickHouseError if its tenant has too many."""
        if tenant is not None and self._open[tenant] >= self._open_max:
            raise ClickHouseError(
                202,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"{self._open_max} queries of this tenant are being read, wait or run: half of store.http_connections_max."
                " Ask again when one is answered",
            )
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _body(self, receive: Receive) -> bytes:
        """Return the body of a request. Raises ClickHouseError if it is too long, or the client has gone."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClickHouseError(210, "NETWORK_ERROR", "the client has gone")
            # An excess is read, but not kept, since a client that is still sending would not see an answer.
            if len(body) <= self._sql_bytes_max:
                body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > self._sql_bytes_max:
            raise ClickHouseError(
                62, "SYNTAX_ERROR", f"the query is longer than {self._sql_bytes_max} bytes (query.sql_bytes_max)"
            )
        return bytes(body)

    def _tenant(self, query: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
        """Return the tenant whose rows the key reads; None: all rows. The name of the user is ignored. Raises
        ClickHouseError."""
        try:
            caller = self._access.reader(_key(query, headers))
        except RequestRefused as refused:
            raise ClickHouseError(
                516, "AUTHENTICATION_FAILED", f"{refused}: the password is a key of scope readonly or higher, for any user"
            ) from None
        return None if caller.scope.is_admin else caller.tenant

    def _read(self, query: Mapping[str, str], headers: Mapping[str, str], query_id: str, body: bytes) -> _QueryRequest:
        """Return the query and its parameters. Raises ClickHouseError."""
        if headers.get("content-type", "").startswith("multipart/"):
            raise ClickHouseError(48, "NOT_IMPLEMENTED", "external tables are not supported")
        if query.get("decompress", "0") not in ("0", "false") or headers.get("content-encoding", "identity") != "identity":
            raise ClickHouseError(48, "NOT_IMPLEMENTED", "compressed queries are not supported: send the query as it is")
        database = query.get("database") or headers.get("x-clickhouse-database") or _DATABASE
        if database != _DATABASE:
            raise ClickHouseError(81, "UNKNOWN_DATABASE", f"Database {database} does not exist: the tables are in {_DATABASE}")
        try:
            parts = [part for part in (query.get("query", ""), body.decode()) if part]
        except UnicodeDecodeError:
            raise ClickHouseError(62, "SYNTAX_ERROR", "the query is not UTF-8 text") from None
        frames = None
        if query.get("compress", "0") not in ("0", "false"):
            frames = query.get("network_compression_method", "LZ4").upper()
            if frames not in ("LZ4", "ZSTD"):
                raise ClickHouseError(48, "NOT_IMPLEMENTED", f"network_compression_method must be LZ4 or ZSTD, not {frames}")
        return _QueryRequest(
            sql="\n".join(parts),
            format=query.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
            settings={
                name: value for name, value in query.items() if name not in _OF_THE_REQUEST and not name.startswith("param_")
            },
            parameters={name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")},
            query_id=query_id,
            client_revision=int(revision) if (revision := query.get("client_protocol_version", "0")).isdecimal() else 0,
            frames=frames,
            accept_encoding="" if query.get("enable_http_compression") == "0" else headers.get("accept-encoding", ""),
        )

    def _error(self, text: str) -> _Answer:
        """Return the answer for an error, whose text contains ClickHouse's code."""
        code = int(found[1]) if (found := _CODE.search(text)) else 49
        headers = {"x-clickhouse-exception-code": str(code)}
        if code == 202:
            headers["retry-after"] = "1"
        return _Answer(f"{text} (version {self._version})\n".encode(), _STATUSES.get(code, 500), headers)


def _key(query: Mapping[str, str], headers: Mapping[str, str]) -> bytes | None:
    """Return the password, in any form of the protocol, or the key, as our API takes it; None if the request has neither."""
    authorization = headers.get("authorization", "")
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2] or None
        except binascii.Error:
            return b""
    password = headers.get("x-clickhouse-key") or query.get("password")
    if password:
        return password.encode("latin-1", "replace")
    api_key = headers.get("x-api-key")
    return key_of(api_key.encode("latin-1") if api_key is not None else None, authorization.encode("latin-1") or None)


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _type_of(format_: str) -> str:
    """Return the Content-Type of one of ClickHouse's formats."""
    return next((type_ for known, type_ in _TYPES if known.fullmatch(format_)), "text/plain; charset=UTF-8")
