"""Where as many connections are open as may be, those that wait for nothing of worth make room for others."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial

import grpc
import pytest
from grpc import aio
from h2.errors import ErrorCodes
from h2.events import PingAckReceived
from h2.settings import SettingCodes
from support.fakes.receiving import connection, grpc_receivers, http_receivers, otlp_logs, post, receivers
from support.http2 import Http2Client, http2
from support.otlp_grpc import LOGS, export
from support.waiting import eventually

from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

PROTOBUF = "application/x-protobuf"
HEALTH = "/grpc.health.v1.Health/"
ASKED = b"\0\0\0\0\0"  # a HealthCheckRequest for all of it
# Long before http.body_timeout_s and grpc.body_timeout_s, 30 s, after which the places would be free anyway.
WITHIN_S = 15
KEYS = {name.encode(): Caller(name, Scope.INGEST, UNLIMITED, name) for name in ("acme", "other")}


def call(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


async def is_taken_by_grpc(port: int, key: str = "") -> bool:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with suppress(aio.AioRpcError):
            return await export(channel, LOGS, otlp_logs(), metadata=[("x-api-key", key)] if key else None) == b""
    return False


async def is_taken_by_http(port: int, *headers: str) -> bool:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        async with connection(port) as raw:
            await raw.send(post("/v1/logs", PROTOBUF, otlp_logs(), *headers))
            return (await raw.response()).status == 200
    return False


async def test_clients_that_watch_make_room() -> None:
    """A call of health's Watch has no end, and needs no key."""
    async with grpc_receivers(connections_max=2) as (made, server), AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(http2(server.port))
            stream_id = client.request(f"{HEALTH}Watch", "application/grpc", None, ("te", "trailers"))
            client.send(stream_id, ASKED, end=True)
            while not client._bodies:
                assert await client.read()
        await eventually(partial(is_taken_by_grpc, server.port), timeout_s=WITHIN_S)
        assert made.counted("infrasage_connections_evicted_total") >= 1


async def test_who_watches_and_sends_keeps_the_place() -> None:
    """The latest message counts, and not the beginning of the watch."""
    async with grpc_receivers(connections_max=2) as (_, server), http2(server.port) as watching, http2(server.port) as sending:
        for client in (watching, sending):
            stream_id = client.request(f"{HEALTH}Watch", "application/grpc", None, ("te", "trailers"))
            client.send(stream_id, ASKED, end=True)
        sends = asyncio.create_task(_send_on(sending))
        await eventually(partial(is_taken_by_grpc, server.port), timeout_s=WITHIN_S)
        assert not sends.done()
        assert await watching.closed() == 0
        sends.cancel()


async def _send_on(client: Http2Client) -> None:
    """Until the connection ends."""
    with suppress(AssertionError):
        while True:
            body = call(otlp_logs())
            await client.response(client.request(LOGS.method, "application/grpc", body, ("te", "trailers")))
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", ["/v1/logs", "/nowhere"])
async def test_who_goes_on_after_a_refusal_over_http_2_makes_room(path: str) -> None:
    """The refusal came before the body, which never comes, as over HTTP/1.1."""
    async with http_receivers(connections_max=2, find=KEYS.get, with_pages=True) as made, AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(http2(made.port))
            stream_id = client.request(path, PROTOBUF, None, ("x-api-key", "wrong"))
            assert (await client.response(stream_id)).status in (401, 404)
        await eventually(partial(is_taken_by_http, made.port), timeout_s=WITHIN_S)
        assert made.counted("infrasage_connections_evicted_total") >= 1


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_answers_that_nobody_reads_make_room(protocol: str) -> None:
    """A client that allows no byte of an answer."""
    is_taken: Callable[[], Awaitable[bool]]
    async with AsyncExitStack() as stack:
        if protocol == "grpc":
            _, server = await stack.enter_async_context(grpc_receivers(connections_max=2))
            port, is_taken = server.port, partial(is_taken_by_grpc, server.port)
        else:
            made = await stack.enter_async_context(http_receivers(connections_max=2))
            port, is_taken = made.port, partial(is_taken_by_http, made.port)
        for _ in range(2):
            client = await stack.enter_async_context(http2(port, acknowledges=False))
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
            client.flush()
            if protocol == "grpc":
                client.request(LOGS.method, "application/grpc", call(otlp_logs()), ("te", "trailers"))
            else:
                client.request("/v1/logs", PROTOBUF, b"no protobuf")
            while not client._statuses:
                assert await client.read()
        await eventually(is_taken, timeout_s=WITHIN_S)


@pytest.mark.parametrize("protocol", ["http1", "http2", "grpc"])
async def test_a_tenant_that_sends_no_whole_body_leaves_room(protocol: str) -> None:
    """Nine of ten connections may wait for its bodies. What it begins beyond is refused, and another tenant is served."""
    made = receivers(find=KEYS.get, anonymous=None)
    async with AsyncExitStack() as stack:
        if protocol == "grpc":
            _, server = await stack.enter_async_context(grpc_receivers(made, connections_max=10))
            port = server.port
        else:
            made = await stack.enter_async_context(http_receivers(connections_max=10, find=KEYS.get, anonymous=None))
            port = made.port
        begin: Callable[[], Awaitable[str]] = partial(
            _begin_by_http1 if protocol == "http1" else partial(_begin_by_http2, protocol), stack, port
        )
        for _ in range(9):
            assert await begin() == ""
        assert "9 connections of tenant acme wait for the rest of a body, and its share is 5" in await begin()
        taken = (
            partial(is_taken_by_grpc, port, "other")
            if protocol == "grpc"
            else partial(is_taken_by_http, port, "X-API-Key: other")
        )
        await eventually(taken, timeout_s=WITHIN_S)
        assert made.in_flight.bytes_held > 0


async def _begin_by_http1(stack: AsyncExitStack, port: int) -> str:
    """Send half a request with acme's key. Return the refusal; empty: there is none so far."""
    raw = await stack.enter_async_context(connection(port))
    await raw.send(b"POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-API-Key: acme\r\n")
    await raw.send(b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
    first = await raw.reader.readline()
    if first.startswith(b"HTTP/1.1 100 "):
        await raw.send(b"{")
        return ""
    return (await raw.reader.read()).decode()


async def _begin_by_http2(protocol: str, stack: AsyncExitStack, port: int) -> str:
    """The same."""
    client = await stack.enter_async_context(http2(port))
    key = ("x-api-key", "acme")
    if protocol == "grpc":
        stream_id = client.request(LOGS.method, "application/grpc", None, ("te", "trailers"), key)
    else:
        stream_id = client.request("/v1/logs", "application/json", None, key)
    client.send(stream_id, b"\0\0\0\0\xffabc" if protocol == "grpc" else b"{")
    # The answer to a ping says that what came before it was looked at; to a second one, that its refusal was sent, if any.
    for number in range(1, 3):
        client.h2.ping(b"%08d" % number)
        client.flush()
        while sum(isinstance(event, PingAckReceived) for event in client.events) < number:
            assert await client.read()
    if stream_id not in client.ended:
        return ""
    answer = await client.response(stream_id)
    return answer.headers.get("grpc-message", "") + answer.body.decode("latin-1")


async def test_calls_beside_telemetry_are_bounded() -> None:
    """The bounds are of one connection and of all. Health's Check is answered, or an orchestrator would restart us."""
    async with (
        grpc_receivers(stream_calls_max=3, connection_stream_calls_max=2) as (_, server),
        http2(server.port) as first,
        http2(server.port) as second,
    ):

        async def watch(client: Http2Client) -> str:
            stream_id = client.request(f"{HEALTH}Watch", "application/grpc", None, ("te", "trailers"))
            client.send(stream_id, ASKED, end=True)
            while stream_id not in client._bodies and stream_id not in client.ended:
                assert await client.read()
            return client._statuses[stream_id].get("grpc-message", "")

        assert [await watch(first) for _ in range(2)] == ["", ""]
        assert "at most 2 on a connection (grpc.connection_stream_calls_max)" in await watch(first)
        assert await watch(second) == ""
        assert "at most 3 (grpc.stream_calls_max)" in await watch(second)
        check = second.request(f"{HEALTH}Check", "application/grpc", ASKED, ("te", "trailers"))
        assert (await second.response(check)).body[:1] == b"\0"
        # A place is free again once a call has ended.
        async with http2(server.port) as third:
            for stream_id in (1, 3):
                first.reset(stream_id)

            async def is_free() -> bool:
                return await watch(third) == ""

            await eventually(is_free, timeout_s=WITHIN_S)


async def test_a_call_that_asks_nothing_ends() -> None:
    async with grpc_receivers(body_timeout_s=0.3) as (_, server), http2(server.port) as client:
        stream_id = client.request(f"{HEALTH}Check", "application/grpc", None, ("te", "trailers"))
        answer = await client.response(stream_id)
        assert answer.headers["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])


async def test_calls_that_are_refused_by_their_heads_take_no_memory() -> None:
    """After 100 that are answered before they are whole, the rest of 16 may still come."""
    async with grpc_receivers() as (_, server), http2(server.port) as client:
        streams = [client.request("/no.such.Service/Method", "application/grpc", None) for _ in range(100)]
        for stream_id in streams:
            assert (await client.response(stream_id)).headers["grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0])
        for stream_id in streams[16:]:
            assert await client.reset_code(stream_id) == ErrorCodes.NO_ERROR
        client.send(streams[0], b"", end=True)
        others = [client.request("/no.such.Service/Method", "application/grpc", None) for _ in range(2)]
        assert await client.reset_code(others[1]) == ErrorCodes.NO_ERROR
        assert client.resets.keys() == {*streams[16:], others[1]}
