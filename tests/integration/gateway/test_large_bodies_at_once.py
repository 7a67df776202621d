"""More large bodies are sent at once than the budget has room for: they wait for it, and none is refused."""

import asyncio
import gzip
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import pytest
from support.certificates import Files, client_context
from support.fakes.receiving import Receivers, grpc_receivers, http_receivers, otlp_logs, receivers
from support.http2 import Http2Client, http2
from support.otlp_grpc import LOGS
from support.waiting import eventually

TENANT_BYTES = 16 << 20
BODY_BYTES = 1 << 20
PROTOBUF = "application/x-protobuf"


class Peak:
    """The most bytes that were held at once."""

    def __init__(self, made: Receivers) -> None:
        self.bytes = 0
        self._made = made

    async def watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._made.in_flight.bytes_held)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def peak_of(made: Receivers) -> AsyncIterator[Peak]:
    peak = Peak(made)
    watching = asyncio.create_task(peak.watch())
    try:
        yield peak
    finally:
        watching.cancel()


async def test_http2_bodies_wait_for_room() -> None:
    """24 of 1 MiB, where 16 MiB may be in memory."""
    streams = 24
    async with (
        http_receivers(in_flight_bytes_max=2 * TENANT_BYTES, tenant_bytes_max=TENANT_BYTES) as made,
        http2(made.port) as client,
        peak_of(made) as peak,
    ):
        body = otlp_logs(padding=BODY_BYTES)
        lengths = ((), (("content-length", str(len(body))),))
        bodies = {client.request("/v1/logs", PROTOBUF, None, *lengths[n % 2]): body for n in range(streams)}
        await client.upload(bodies)
        assert [(await client.response(stream_id, 300)).status for stream_id in bodies] == [200] * streams
        assert made.producer.item_count() == streams
        assert peak.bytes <= TENANT_BYTES
        assert made.in_flight.bytes_held == 0


class Http1Client:
    """A connection of HTTP/1.1 for one request. Its answer is read while the body is sent: a server may close after that."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), 65_536):
            self._writer.write(data[at : at + 65_536])
            await self._writer.drain()

    async def post(self, body: bytes, *headers: str) -> int:
        """The answer's status."""
        await self.send(head_of(f"content-length: {len(body)}", *headers))
        await self.send(body)
        return await self.status()

    async def status(self) -> int:
        while (status := int((await self._reader.readuntil(b"\r\n\r\n"))[9:12])) == 100:
            pass
        return status


def head_of(*headers: str) -> bytes:
    return "\r\n".join(["POST /v1/logs HTTP/1.1", "host: x", f"content-type: {PROTOBUF}", *headers, "", ""]).encode()


def in_chunks(body: bytes) -> bytes:
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    return b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""]])


@pytest.mark.parametrize("framing", ["plain", "chunked", "tls", "expect"])
async def test_http1_bodies_wait_for_room(framing: str, tmp_path: Path) -> None:
    """A connection for each of 24 of 1 MiB, where 16 MiB may be in memory."""
    senders = 24
    body = otlp_logs(padding=BODY_BYTES)
    async with (
        http_receivers(
            in_flight_bytes_max=2 * TENANT_BYTES,
            tenant_bytes_max=TENANT_BYTES,
            certificates=Files(tmp_path).load() if framing == "tls" else None,
        ) as made,
        peak_of(made) as peak,
    ):

        async def status() -> int:
            async with Http1Client(made.port, client_context() if framing == "tls" else None) as client:
                if framing != "chunked":
                    return await client.post(body, *(["expect: 100-continue"] if framing == "expect" else []))
                await client.send(head_of("transfer-encoding: chunked"))
                await client.send(in_chunks(body))
                return await client.status()

        assert await asyncio.gather(*[status() for _ in range(senders)]) == [200] * senders
        assert made.producer.item_count() == senders
        assert peak.bytes <= TENANT_BYTES
        assert made.in_flight.bytes_held == 0


async def test_a_body_over_http1_waits_for_one_over_http2() -> None:
    """They share the order, and one that is cancelled lets the other go on."""
    body = otlp_logs(padding=4 * BODY_BYTES)
    async with (
        http_receivers(in_flight_bytes_max=2 * TENANT_BYTES, tenant_bytes_max=TENANT_BYTES, body_timeout_s=3600) as made,
        http2(made.port) as client,
        Http1Client(made.port) as other,
    ):
        made.in_flight.share("anonymous").reserve(TENANT_BYTES // 4)
        stream_id = client.request("/v1/logs", PROTOBUF)
        first = asyncio.create_task(client.upload({stream_id: body[:-1]}, ends=False))
        await eventually(lambda: made.in_flight.bytes_held > TENANT_BYTES // 4 + 65_536)
        answering = asyncio.create_task(other.post(body))
        await asyncio.wait_for(first, 60)
        held = made.in_flight.bytes_held
        assert held < TENANT_BYTES // 4 + len(body) + len(body) // 2
        assert not answering.done()
        client.reset(stream_id)
        assert await asyncio.wait_for(answering, 60) == 200
        assert made.in_flight.bytes_held == TENANT_BYTES // 4


@pytest.mark.parametrize(("streams", "body_bytes"), [(24, BODY_BYTES), (150, 300_000)])
async def test_grpc_messages_wait_for_room(streams: int, body_bytes: int) -> None:
    """Few and large, or many whose first windows take most of the room."""
    made = receivers(in_flight_bytes_max=2 * TENANT_BYTES, tenant_bytes_max=TENANT_BYTES)
    async with grpc_receivers(made) as (_, server), http2(server.port) as client, peak_of(made) as peak:
        body = otlp_logs(padding=body_bytes)
        message = b"\0" + len(body).to_bytes(4, "big") + body
        bodies = {client.request(LOGS.method, "application/grpc", None, ("te", "trailers")): message for _ in range(streams)}
        await client.upload(bodies)
        for stream_id in bodies:
            await client.response(stream_id, 300)
        assert {client.trailers(stream_id)["grpc-status"] for stream_id in bodies} == {"0"}
        assert made.producer.item_count() == streams
        assert peak.bytes <= TENANT_BYTES
        assert made.in_flight.bytes_held == 0


async def test_compressed_bodies_wait_for_what_others_become() -> None:
    """24 that become 4 MiB each, where 16 MiB may be in memory."""
    streams = 24
    async with (
        http_receivers(in_flight_bytes_max=2 * TENANT_BYTES, tenant_bytes_max=TENANT_BYTES) as made,
        http2(made.port) as client,
        peak_of(made) as peak,
    ):
        noise = random.Random(1).randbytes(BODY_BYTES // 8).hex()
        body = gzip.compress(otlp_logs(padding=4 * BODY_BYTES).replace(b"x" * len(noise), noise.encode(), 1), 1)
        assert len(body) > BODY_BYTES // 8
        bodies = {client.request("/v1/logs", PROTOBUF, None, ("content-encoding", "gzip")): body for _ in range(streams)}
        await client.upload(bodies)
        assert [(await client.response(stream_id, 300)).status for stream_id in bodies] == [200] * streams
        assert peak.bytes <= TENANT_BYTES
        assert made.in_flight.bytes_held == 0


async def test_bodies_that_nobody_ends_do_not_hold_up_others() -> None:
    """100 calls of another connection, with the same key, which bring what they may at once and then nothing."""
    made = receivers(in_flight_bytes_max=2 * TENANT_BYTES, tenant_bytes_max=TENANT_BYTES)
    async with (
        grpc_receivers(made, body_timeout_s=3600) as (_, server),
        http2(server.port) as hostile,
        http2(server.port) as honest,
    ):
        head = (LOGS.method, "application/grpc", None, ("te", "trailers"))
        for _ in range(100):  # one after the other, so that the last of them wait before others do
            await hostile.upload({hostile.request(*head): b"\0\0\xff\xff\xff" + bytes(65_530)}, ends=False)
        await eventually(lambda: made.in_flight.bytes_held > TENANT_BYTES // 4, timeout_s=60)
        body = otlp_logs(padding=BODY_BYTES)
        message = b"\0" + len(body).to_bytes(4, "big") + body
        bodies = {honest.request(*head): message for _ in range(4)}
        await asyncio.wait_for(honest.upload(bodies), 120)
        for stream_id in bodies:
            await honest.response(stream_id, 120)
        assert {honest.trailers(stream_id)["grpc-status"] for stream_id in bodies} == {"0"}
        hostile.writer.close()
        await eventually(lambda: made.in_flight.bytes_held == 0, timeout_s=60)


async def test_calls_of_many_connections_wait_for_room() -> None:
    """nginx opens a connection for each call. What each may send at once counts as soon as it may."""
    made = receivers(in_flight_bytes_max=2 * TENANT_BYTES, tenant_bytes_max=TENANT_BYTES)
    async with grpc_receivers(made) as (_, server), AsyncExitStack() as stack:
        body = otlp_logs(padding=700_000)
        message = b"\0" + len(body).to_bytes(4, "big") + body
        clients = [await stack.enter_async_context(http2(server.port)) for _ in range(40)]

        async def status(client: Http2Client) -> str:
            stream_id = client.request(LOGS.method, "application/grpc", None, ("te", "trailers"))
            await client.upload({stream_id: message})
            await client.response(stream_id, 300)
            return client.trailers(stream_id)["grpc-status"]

        made.producer.gate.clear()
        answering = [asyncio.create_task(status(client)) for client in clients]
        await made.producer.waiting.wait()
        for _ in range(3000):  # enough for all that may come
            await asyncio.sleep(0)
        made.producer.gate.set()
        assert set(await asyncio.gather(*answering)) == {"0"}
        assert made.in_flight.bytes_held == 0
