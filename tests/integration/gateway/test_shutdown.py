"""Servers that leave: what they say, what they answer all the same, and what is on its way when they end."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.errors import ErrorCodes
from support.certificates import Files, client_context
from support.fakes.receiving import RawConnection, Receivers, connection, grpc_receivers, http_receivers, otlp_logs, post
from support.http2 import Http2Client, http2
from support.waiting import eventually

from collector.config.receivers import Http
from collector.receivers.grpc.server import GrpcServer
from collector.receivers.http.server import SERVERS
from collector.receivers.transport.connections import Connections
from collector.receivers.transport.pending import has_unread
from collector.telemetry.metrics import Metrics

PROTOBUF = "application/x-protobuf"
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
STREAM_ID_MAX = (1 << 31) - 1
EACH_SERVER = pytest.mark.parametrize("server", SERVERS)


def logs() -> bytes:
    return post("/v1/logs", PROTOBUF, otlp_logs())


def export(client: Http2Client) -> int:
    """Begin a call of gRPC; its stream."""
    message = otlp_logs()
    return client.request(EXPORT, "application/grpc", b"\0" + len(message).to_bytes(4, "big") + message, ("te", "trailers"))


def http_export(client: Http2Client) -> int:
    """The same over HTTP."""
    return client.request("/v1/logs", PROTOBUF, otlp_logs())


async def goodbyes(client: Http2Client, count: int) -> list[tuple[int, int]]:
    """The stream and the code of each GOAWAY, once there are so many."""
    async with asyncio.timeout(10):
        while len(client.goaways) < count:
            assert await client.read(), "closed"
    return [(each.last_stream_id or 0, int(each.error_code or 0)) for each in client.goaways]


@EACH_SERVER
async def test_a_server_that_leaves_answers_and_says_so(server: str) -> None:
    """HTTP/1.1: kept connections and new ones are answered, with `Connection: close`; the idle one stays open until the end."""
    async with http_receivers(server) as made, connection(made.port) as kept, connection(made.port) as idle:
        http = made.server
        assert http is not None
        for raw in (kept, idle):
            await raw.send(logs())
            assert "connection" not in (await raw.response()).headers
        assert http.is_used
        http.leave()
        async with connection(made.port) as new:
            for raw in (kept, new):
                await raw.send(logs())
                answer = await raw.response()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await raw.closed()
        await idle.send(logs())
        assert (await idle.response()).headers["connection"] == "close"
        assert made.producer.item_count() == 5


async def test_pipelined_requests_are_all_answered_by_a_server_that_leaves() -> None:
    """Only the last answer announces that it is the last."""
    async with http_receivers() as made, connection(made.port) as raw:
        assert made.server is not None
        made.server.leave()
        await raw.send(logs() + logs() + logs())
        said = [(answer.status, answer.headers.get("connection")) for answer in [await raw.response() for _ in range(3)]]
        assert said == [(200, None), (200, None), (200, "close")]


Way = Callable[[AsyncExitStack], Awaitable[tuple[Receivers, Any, int, Callable[[Http2Client], int]]]]


async def over_http(stack: AsyncExitStack) -> tuple[Receivers, Any, int, Callable[[Http2Client], int]]:
    made = await stack.enter_async_context(http_receivers())
    return made, made.server, made.port, http_export


async def over_grpc(stack: AsyncExitStack) -> tuple[Receivers, Any, int, Callable[[Http2Client], int]]:
    made, server = await stack.enter_async_context(grpc_receivers())
    return made, server, server.port, export


EACH_WAY = pytest.mark.parametrize("way", [over_http, over_grpc])


@EACH_WAY
async def test_goaway_comes_first_and_everything_is_answered(way: Way) -> None:
    """RFC 9113, 6.8: first 2^31-1, and what is begun all the same is answered; at the end the last stream that was."""
    async with AsyncExitStack() as stack:
        made, server, port, begin = await way(stack)
        client = await stack.enter_async_context(http2(port))
        assert (await client.response(begin(client))).status == 200
        server.leave()
        assert await goodbyes(client, 1) == [(STREAM_ID_MAX, ErrorCodes.NO_ERROR)]
        assert (await client.response(begin(client))).status == 200
        last = begin(client)
        assert (await client.response(last)).status == 200
        stopping = asyncio.create_task(server.stop(5))
        assert await goodbyes(client, 2) == [(STREAM_ID_MAX, ErrorCodes.NO_ERROR), (last, ErrorCodes.NO_ERROR)]
        await client.closed()
        await asyncio.wait_for(stopping, 5)
        assert made.producer.item_count() == 3


@EACH_WAY
async def test_a_new_connection_to_a_server_that_leaves_is_answered_once(way: Way) -> None:
    """GOAWAY comes with its first answer, so that no client connects again and again for nothing."""
    async with AsyncExitStack() as stack:
        _, server, port, begin = await way(stack)
        server.leave()
        client = await stack.enter_async_context(http2(port))
        assert (await client.response(begin(client))).status == 200
        assert await goodbyes(client, 1) == [(STREAM_ID_MAX, ErrorCodes.NO_ERROR)]


@EACH_WAY
async def test_what_crosses_the_end_is_answered(way: Way) -> None:
    """Streams that a client begins before it can know, without a lame duck too; and connections that were just made."""
    async with AsyncExitStack() as stack:
        made, server, port, begin = await way(stack)
        known = await stack.enter_async_context(http2(port))
        assert (await known.response(begin(known))).status == 200
        silent = await stack.enter_async_context(http2(port))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        unbegun = Http2Client(reader, writer)
        stopping = asyncio.create_task(server.stop(5))
        await asyncio.sleep(0)
        unbegun.begin()
        crossing = [begin(known), begin(known), begin(silent), begin(unbegun)]
        for client, stream_id in zip((known, known, silent, unbegun), crossing, strict=True):
            assert (await client.response(stream_id)).status == 200
        writer.close()
        await asyncio.wait_for(stopping, 5)
        assert made.producer.item_count() == 5


@EACH_SERVER
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_a_request_that_crosses_the_end_is_answered(server: str, is_tls: bool, tmp_path: Path) -> None:
    """The server has accepted the connection, or the kernel holds it, and no byte of it has come yet."""
    certificates = Files(tmp_path).load() if is_tls else None
    async with http_receivers(server, certificates=certificates) as made:
        assert made.server is not None
        tls: Any = {"ssl": client_context(), "server_hostname": "localhost"} if is_tls else {}
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port, **tls)
        # No await between: the loop can't accept it.
        with socket.create_connection(("127.0.0.1", made.port)) as held:
            held.setblocking(False)
            stopping = asyncio.create_task(made.server.stop(5))
            await asyncio.sleep(0)
            later_reader, later_writer = await asyncio.open_connection(sock=held.dup(), **tls)
            for reads, writes in ((reader, writer), (later_reader, later_writer)):
                writes.write(logs())
                answer = await asyncio.wait_for(reads.read(), 5)
                assert answer.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in answer.lower()
                writes.close()
        await asyncio.wait_for(stopping, 5)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", made.port)
        assert made.producer.item_count() == 2


async def test_a_request_that_is_not_read_yet_is_answered() -> None:
    """It is on a kept connection, in the kernel's buffer when the server closes idle connections."""
    async with http_receivers() as made, connection(made.port) as raw:
        assert made.server is not None
        await raw.send(logs())
        assert (await raw.response()).status == 200
        # One right after the other: the loop does not look at the socket between.
        asyncio.get_running_loop().call_soon(os.write, raw.writer.get_extra_info("socket").fileno(), logs())
        stopping = asyncio.create_task(made.server.stop(5))
        answer = await raw.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await asyncio.wait_for(stopping, 2)


async def test_a_head_that_crosses_the_end_is_waited_for() -> None:
    """The half of it is here when the server stops; the rest follows."""
    async with http_receivers() as made, connection(made.port) as raw:
        assert made.server is not None
        await raw.send(logs())
        assert (await raw.response()).status == 200
        await raw.send(logs()[:30])
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(made.server.stop(5))
        await asyncio.sleep(0.05)
        await raw.send(logs()[30:])
        answer = await raw.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await asyncio.wait_for(stopping, 2)


async def test_connections_that_never_ask_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """Fresh ones are given a second, handshakes too."""
    for certificates in (None, Files(tmp_path).load()):
        async with http_receivers(certificates=certificates) as made, connection(made.port):
            http = made.server
            assert http is not None
            await eventually(http.connection_count)
            began = asyncio.get_running_loop().time()
            await http.stop(10)
            assert asyncio.get_running_loop().time() - began < 3


async def test_health_over_grpc_reports_it_and_calls_go_on() -> None:
    """Check and Watch; the call that comes then is answered."""
    async with grpc_receivers() as (made, server), aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.leave()
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        method: Any = channel.unary_unary(EXPORT)
        for _ in range(5):
            assert await method(otlp_logs(), timeout=5) == b""
        assert made.producer.item_count() == 5
        watching.cancel()
        with suppress(grpc.RpcError, asyncio.CancelledError):
            await watching.read()


async def used_a_moment_ago(server: Any, port: int) -> None:
    assert not server.is_used
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: server.is_used)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert server.is_used


async def test_who_was_connected_a_moment_ago_counts() -> None:
    """A balancer's look at health is a connection of a moment; where there was none, nobody has to be waited for."""
    async with http_receivers() as made, grpc_receivers() as (_, grpc_server):
        assert made.server is not None
        assert isinstance(grpc_server, GrpcServer)
        await used_a_moment_ago(made.server, made.port)
        await used_a_moment_ago(grpc_server, grpc_server.port)


class Closed:
    """A transport over TLS that is closed: uvloop's has no socket then."""

    def get_extra_info(self, name: str) -> None:
        assert name == "socket"


def test_a_closed_connection_has_nothing_unread() -> None:
    """A connection that closes while the server stops does not end the stop with an error."""
    assert not has_unread(Closed())


@EACH_SERVER
async def test_an_old_connection_is_asked_to_end(server: str) -> None:
    """HTTP/1.1: an answer of an old connection says that it is the last; one that is idle is left alone until it asks again."""
    async with http_receivers(server, connection_age_max_s=1) as made, connection(made.port) as idle:
        answers = 0

        async def is_told(raw: RawConnection) -> bool:
            nonlocal answers
            await raw.send(logs())
            answer = await raw.response()
            assert answer.status == 200
            answers += 1
            return answer.headers.get("connection") == "close"

        assert not await is_told(idle)
        async with connection(made.port) as busy:
            await eventually(lambda: is_told(busy))
            assert answers > 2
            assert await busy.closed()
        # Their ages differ by their jitter, so this one may have some time left.
        await eventually(lambda: is_told(idle))
        assert await idle.closed()
        assert made.producer.item_count() == answers


async def http_of_age(stack: AsyncExitStack) -> tuple[Receivers, Any, int, Callable[[Http2Client], int]]:
    made = await stack.enter_async_context(http_receivers(connection_age_max_s=1))
    return made, made.server, made.port, http_export


async def grpc_of_age(stack: AsyncExitStack) -> tuple[Receivers, Any, int, Callable[[Http2Client], int]]:
    made, server = await stack.enter_async_context(grpc_receivers(connection_age_max_s=1))
    return made, server, server.port, export


@pytest.mark.parametrize("way", [http_of_age, grpc_of_age])
async def test_an_old_http_2_connection_ends_with_goaway(way: Way) -> None:
    """What is in flight is answered: GOAWAY first for all streams, then with the last one, and then the connection ends. A new
    one is taken."""
    async with AsyncExitStack() as stack:
        made, _, port, begin = await way(stack)
        client = await stack.enter_async_context(http2(port))
        made.producer.gate.clear()
        first = begin(client)
        assert await goodbyes(client, 2) == [(STREAM_ID_MAX, ErrorCodes.NO_ERROR), (first, ErrorCodes.NO_ERROR)]
        assert made.producer.item_count() == 0
        made.producer.gate.set()
        assert (await client.response(first)).status == 200
        assert await client.closed() == ErrorCodes.NO_ERROR
        again = await stack.enter_async_context(http2(port))
        assert (await again.response(begin(again))).status == 200
        assert made.producer.item_count() == 2


@pytest.mark.parametrize("at_once", [1, 5])
async def test_a_client_that_takes_nothing_behind_goaway_loses_no_answer(at_once: int) -> None:
    """httpx: an answer that it has not read when GOAWAY comes is an error to it, as is a request that GOAWAY names as taken.
    What it sends meanwhile is sent again on another connection, and stored once."""
    async with http_receivers(connection_age_max_s=2) as made, asyncio.timeout(120):
        accepted: set[int] = set()
        calls = 0
        server: Any = made.server
        server._connections.held_back_s = 2.0  # an answer is read in this time, however slow the machine is
        async with httpx.AsyncClient(base_url=made.url, http1=False, http2=True, timeout=60) as http:

            async def send() -> None:
                nonlocal calls
                while len(accepted) < 3:
                    answer = await http.post(
                        "/v1/logs", content=otlp_logs(), headers={"content-type": "application/x-protobuf"}
                    )
                    assert answer.status_code == 200
                    calls += 1
                    accepted.update(id(open_) for open_ in server._connections.open)

            await asyncio.gather(*(send() for _ in range(at_once)))
        assert made.producer.item_count() == calls


async def test_a_grpc_client_moves_without_an_error() -> None:
    """grpc's own client connects anew, over and over, and no call fails."""
    async with grpc_receivers(connection_age_max_s=0.5) as (made, server):
        accepted: set[int] = set()
        calls = 0
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel, asyncio.timeout(20):
            method: Any = channel.unary_unary(EXPORT)
            while len(accepted) < 3:
                await method(otlp_logs())
                calls += 1
                accepted |= {id(open_) for open_ in server._connections.open}
        assert made.producer.item_count() == calls


def test_connections_that_began_together_end_at_different_times() -> None:
    """Give or take a tenth of the age; without an age, never."""

    def ends(age_s: float) -> set[float]:
        connections = Connections(Metrics(), Http.model_validate({"connection_age_max_s": age_s}))
        return {connections.ends_at(1000) for _ in range(100)}

    found = ends(600)
    assert 50 < len(found)
    assert 1540 <= min(found) <= max(found) <= 1660
    assert {float("inf")} == ends(0)
