"""The query socket: its server and its client, against each other and against raw bytes."""

import asyncio
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from collector.api.query_client import SOCKET, TABLE_FORMAT, NotRunning, QueryFailed, ask, ask_dead_letters
from collector.api.query_socket import QuerySocket
from collector.broker.contract import BrokerDown, Message, Payload
from collector.config.receivers import Validation
from collector.config.store import Query
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.dead_letters.service import DeadLetterService
from collector.ingest.validate import Limits
from collector.query.live_records import LiveRecords
from collector.query.reader import Reader
from collector.store.contract import NOTHING, Completed, StoreError, StoreUnavailable
from collector.telemetry.metrics import Metrics


class EchoStore:
    """Answers a statement with itself; some statements fail."""

    def __init__(self) -> None:
        self.running = 0
        self.running_most = 0
        self._lock = threading.Lock()

    def query(self, sql: str, format_: str) -> bytes:
        if sql == "wrong":
            raise StoreError("Code: 62. DB::Exception: Syntax error: wrong")
        if sql == "away":
            raise StoreUnavailable("the engine is away")
        if sql == "defect":
            raise ZeroDivisionError
        with self._lock:
            self.running += 1
            self.running_most = max(self.running, self.running_most)
        if sql.startswith("slow"):
            time.sleep(0.1)
        with self._lock:
            self.running -= 1
        return f"{format_}:{sql}".encode()

    def read(self, sql: str, format_: str) -> bytes:
        raise NotImplementedError

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        raise NotImplementedError

    insert_outlives_s = 0.0

    def holds(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        raise NotImplementedError

    def untouched(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        raise NotImplementedError

    def can_complete(self, topic: str, payload: bytes) -> bool:
        raise NotImplementedError

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        raise NotImplementedError

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        raise NotImplementedError

    def copies(
        self,
        topic: str,
        asked: Mapping[tuple[bytes, bytes], int],
        besides: Collection[tuple[UUID, int]],
        since_ns: int,
        until_ns: int,
    ) -> dict[tuple[bytes, bytes], list[int]]:
        raise NotImplementedError

    def ping(self) -> None:
        raise NotImplementedError


async def at_once(_wait_s: float) -> int:
    return 0


def desk(query: Callable[[str, str], bytes]) -> DeadLetterService:
    async def append(_messages: Sequence[Message]) -> None:
        raise BrokerDown("the log is away")

    reports = DeadLetterReports(Reader(query, at_once, 1), None)
    limits = Limits(**Validation().model_dump())
    return DeadLetterService(
        reports, DeadLetterReplayer(reports, append, {}, limits, message_bytes_max=1 << 19, now_unix_nano=time.time_ns)
    )


async def test_the_desk_of_dead_letters_is_behind_the_same_socket(tmp_path: Path) -> None:
    """An answer is JSON; what can't be done is said as of a query, and does not end the server."""

    def away(sql: str, _format: str) -> bytes:
        if "KeptAt DESC" in sql:
            return b""
        raise StoreUnavailable("the engine is away")

    async with serving(tmp_path, dead_letters=away):
        listed = await asyncio.to_thread(ask_dead_letters, tmp_path, {"do": "list", "limit": 10})
        assert listed == {"entries": [], "next_cursor": None, "messages_behind": 0}
        for request, said in (
            ({"do": "burn"}, "there is no action 'burn' for dead letters"),
            ({"do": "list", "limit": 1, "cursor": "x"}, "cursor must be next_cursor of the page before"),
            ({"do": "list", "limit": 1, "filter": {"since": "now"}}, "since must be RFC 3339"),
            ({"do": "show", "ids": ["x"]}, "'x' is no id of a dead letter"),
            ({"do": "show", "ids": ["8d68a96f-b5a9-88a8-a9e8-1202c1248f72"]}, "the engine is away"),
            ({"do": "replay"}, "a defect of the collector"),
        ):
            with pytest.raises(QueryFailed, match=said):
                await asyncio.to_thread(ask_dead_letters, tmp_path, request)


@asynccontextmanager
async def serving(
    data_dir: Path,
    store: EchoStore | None = None,
    caught_up: Callable[[float], Awaitable[int]] = at_once,
    settings: Query = Query(),  # noqa: B008  # it can't be changed
    dead_letters: Callable[[str, str], bytes] = lambda _sql, _format: b"",
) -> AsyncIterator[None]:
    data_dir.mkdir(parents=True, exist_ok=True)
    server = QuerySocket(
        data_dir, store or EchoStore(), caught_up, settings, desk(dead_letters), Metrics(), LiveRecords(time.monotonic).answer
    )
    await server.start()
    try:
        yield
    finally:
        await server.close()


async def asked(data_dir: Path, sql: str, format_: str = TABLE_FORMAT) -> bytes:
    return (await asyncio.to_thread(ask, data_dir, sql, format_)).body


async def test_an_answer_is_the_stores_bytes(tmp_path: Path) -> None:
    """They are the store's, whatever the statement and the format."""
    async with serving(tmp_path):
        assert await asked(tmp_path, "SELECT 'ü\n'") == f"{TABLE_FORMAT}:SELECT 'ü\n'".encode()
        assert await asked(tmp_path, "SELECT 1", "A&B=ü") == "A&B=ü:SELECT 1".encode()
        assert await asked(tmp_path, "") == f"{TABLE_FORMAT}:".encode()


async def test_only_the_owner_may_ask(tmp_path: Path) -> None:
    """The socket's mode is 0600 from before anyone could connect."""
    async with serving(tmp_path):
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("wrong", "Code: 62. DB::Exception: Syntax error: wrong"),
        ("away", "the engine is away"),
        ("defect", "a defect of the collector; its log has the details"),
        ("x" * 5000, "the query is longer than 4 KiB (query.sql_bytes_max)"),
        ("x" * 5_000_000, "the query is longer than 4 KiB (query.sql_bytes_max)"),
    ],
)
async def test_a_failure_has_the_stores_words(tmp_path: Path, sql: str, message: str) -> None:
    """The client raises QueryFailed with the message as it was, and the server goes on."""
    async with serving(tmp_path, settings=Query(sql_bytes_max=4096)):
        with pytest.raises(QueryFailed) as caught:
            await asked(tmp_path, sql)
        assert str(caught.value) == message
        assert await asked(tmp_path, "again") == f"{TABLE_FORMAT}:again".encode()


async def test_it_waits_until_what_was_acknowledged_is_stored(tmp_path: Path) -> None:
    """The store is not asked before the writer has caught up; how far it is behind after the set time is reported."""
    waited: list[float] = []

    async def behind(wait_s: float) -> int:
        waited.append(wait_s)
        return 7

    async with serving(tmp_path, caught_up=behind, settings=Query(wait_s=0.5)):
        answer = await asyncio.to_thread(ask, tmp_path, "SELECT 1", "CSV")
    assert answer.messages_behind == 7
    assert waited == [0.5]


async def test_so_many_at_once_and_no_more(tmp_path: Path) -> None:
    """Queries beyond query.concurrent_max wait their turn; all are answered."""
    store = EchoStore()
    async with serving(tmp_path, store, settings=Query(concurrent_max=2)):
        answers = await asyncio.gather(*(asked(tmp_path, f"slow {index}") for index in range(6)))
    assert answers == [f"{TABLE_FORMAT}:slow {index}".encode() for index in range(6)]
    assert store.running_most == 2


@pytest.mark.parametrize("depth", [1, 20])
async def test_a_data_directory_may_be_deep(tmp_path: Path, depth: int) -> None:
    """The kernel's bound on a socket's path does not bound the data directory's; nothing is left lying about."""
    data_dir = tmp_path.joinpath(*["a-long-name"] * depth)
    async with serving(data_dir):
        assert (len(os.fsencode(data_dir / SOCKET)) > 108) == (depth == 20)
        assert await asked(data_dir, "x") == f"{TABLE_FORMAT}:x".encode()
    assert list(data_dir.iterdir()) == []


async def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    """Nobody listens at it: the client says so, and the server takes its place."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / SOCKET))
    left.close()
    with pytest.raises(NotRunning):
        ask(tmp_path, "x", TABLE_FORMAT)
    async with serving(tmp_path):
        assert await asked(tmp_path, "x") == f"{TABLE_FORMAT}:x".encode()


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_nobody_there(tmp_path: Path, missing: str) -> None:
    """No socket, or not even a directory, is NotRunning."""
    with pytest.raises(NotRunning):
        ask(tmp_path / missing, "x", TABLE_FORMAT)


def test_a_socket_that_may_not_be_used_is_named(tmp_path: Path) -> None:
    """A socket of another user. A loop of links is used in its place, since root may connect to every socket."""
    (tmp_path / SOCKET).symlink_to(tmp_path / SOCKET)
    with pytest.raises(QueryFailed, match=f"cannot connect to {tmp_path / SOCKET}: .+; only the user that"):
        ask(tmp_path, "x", TABLE_FORMAT)


async def test_a_server_that_dies_before_it_answers(tmp_path: Path) -> None:
    """The client does not take half an answer for a whole one."""

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_unix_server(break_off, tmp_path / SOCKET)
    with pytest.raises(QueryFailed, match="closed the connection before it answered"):
        await asked(tmp_path, "x")
    server.close()


async def raw(data_dir: Path, request: bytes) -> bytes:
    """What the server answers to these bytes, until it closes."""
    reader, writer = await asyncio.open_unix_connection(data_dir / SOCKET)
    writer.write(request)
    if not request.endswith(b"no end"):
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /query?format=CSV HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", b"200"),
        (b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"200"),
        (b"GET /query HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", b"404"),
        (b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n\xff", b"400"),
        (b"rubbish\r\n\r\n", b"400"),
        (b"POST /query HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, b"431"),
        (b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nno end", b"408"),
        (b"", b""),
    ],
)
async def test_whatever_is_sent_has_an_answer(tmp_path: Path, request_: bytes, status: bytes) -> None:
    """Clients other than ours: chunked, wrong methods and paths, rubbish, and those that stop half-way."""
    async with serving(tmp_path, settings=Query(body_timeout_s=0.3)):
        answer = await raw(tmp_path, request_)
        assert answer.partition(b" ")[2][:3] == status
        assert await asked(tmp_path, "x") == f"{TABLE_FORMAT}:x".encode()


async def test_a_client_may_ask_before_it_sends(tmp_path: Path) -> None:
    """curl waits for 100 Continue before a long body."""
    async with serving(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
        writer.write(b"POST /query HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100 ")
        writer.write(b"x")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
        writer.close()
