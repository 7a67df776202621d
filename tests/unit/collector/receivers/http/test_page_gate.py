"""How many pages are answered at once, and in how much memory."""

import asyncio
import contextlib
import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from h2.settings import SettingCodes
from support.fakes.receiving import EXPLAIN, counted, http_receivers, otlp_logs
from support.http2 import http2
from support.waiting import eventually

from collector.config.receivers import Http
from collector.receivers.http.page_gate import PageGate
from collector.telemetry.metrics import Metrics


class Client:
    """One connection's requests for pages; what is sent to it waits while `reads` is not set."""

    def __init__(self, gate: PageGate, address: str = "10.0.0.1", port: int = 1) -> None:
        self.gate = gate
        self.client = (address, port)
        self.reads = asyncio.Event()
        self.asked: list[asyncio.Task[None]] = []

    async def get(self, path: str = "/docs", query: bytes = b"") -> dict[str, Any]:
        """Ask, and read the answer."""
        answer: dict[str, Any] = {"body": b""}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.update(status=message["status"], headers=dict(message["headers"]))
            else:
                answer["body"] += message["body"]

        await self.gate(self._scope(path, query), _receive, send)
        return answer

    def ask(self, path: str = "/docs") -> None:
        """Ask, and read nothing yet."""

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await self.reads.wait()

        self.asked.append(asyncio.create_task(self.gate(self._scope(path), _receive, send)))

    def _scope(self, path: str, query: bytes = b"") -> dict[str, Any]:
        ends = {"client": self.client, "server": ("10.0.0.9", 8080)}
        return {"type": "http", "path": path, "query_string": query, "headers": [], **ends}


async def _receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def pages(scope: Any, _receive: Any, send: Any) -> None:
    """As many bytes as the path says."""
    if scope["path"] == "/defect":
        raise ZeroDivisionError
    name = scope["path"].removeprefix("/")
    body = b"x" * int(name) if name.isdigit() else name.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def gated(**settings: Any) -> AsyncIterator[tuple[PageGate, Metrics]]:
    metrics = Metrics()
    yield PageGate(pages, Http.model_validate(settings), metrics, EXPLAIN), metrics


def refused(answer: dict[str, Any]) -> str:
    """Its message; it is 503, to be tried again."""
    assert (503, b"3") == (answer["status"], answer["headers"][b"retry-after"])
    document = json.loads(answer["body"])
    assert "overloaded" == document["error"]
    return str(document["message"])


async def test_pages_at_once_are_bounded() -> None:
    """They are by connection and in all. The refusal has the number and the setting, and is counted."""
    async with gated(pages_max=4, connection_pages_max=2) as (gate, metrics):
        clients = [Client(gate, f"10.0.0.{number}", number) for number in range(3)]
        for client in clients[:2]:
            for _ in range(2):
                client.ask()
        await eventually(lambda: gate.pages == 4)
        assert "2 pages are being answered on this connection (http.connection_pages_max)" in refused(await clients[0].get())
        assert "4 pages are being answered (http.pages_max)" in refused(await clients[2].get())
        assert 2 == counted(metrics, "infrasage_requests_refused_total", reason="overloaded")
        clients[0].reads.set()
        await asyncio.gather(*clients[0].asked)
        assert 200 == (await clients[2].get())["status"]
        clients[1].reads.set()
        await asyncio.gather(*clients[1].asked)


async def test_one_address_leaves_half_to_others() -> None:
    """It leaves it however many connections it has."""
    async with gated(pages_max=8, connection_pages_max=2) as (gate, _):
        greedy = [Client(gate, "10.0.0.1", port) for port in range(4)]
        for client in greedy:
            client.ask()
        await eventually(lambda: gate.pages == 4)
        assert "4 pages are being answered to this address (half of http.pages_max)" in refused(await greedy[0].get())
        assert 200 == (await Client(gate, "10.0.0.2").get())["status"]
        for client in greedy:
            client.reads.set()
            await asyncio.gather(*client.asked)


async def test_bodies_are_bounded() -> None:
    """A page that would be too much is refused with the numbers, and answered once others are read. A caller's only one may be
    larger, or it would never be answered."""
    async with gated(page_bytes_max=100_000) as (gate, _):
        assert 200_000 == len((await Client(gate).get("/200000"))["body"])
        holders = [Client(gate, port=1), Client(gate, "10.0.0.2"), Client(gate, "10.0.0.2")]
        for holder, path in zip(holders, ("/60000", "/30000", "/20000"), strict=True):
            holder.ask(path)
        await eventually(lambda: gate.bytes_held == 110_000)
        numbers = "the answer has 1000 bytes; {} of yours and {} of other pages are not read yet, of at most 100000, half of it"
        assert numbers.format(60_000, 50_000) in refused(await Client(gate, port=2).get("/1000"))
        assert numbers.format(0, 100_000) in refused(await Client(gate, "10.0.0.3").get("/1000"))
        holders[1].reads.set()
        await asyncio.gather(*holders[1].asked)
        assert 200 == (await Client(gate, "10.0.0.3").get("/1000"))["status"]
        assert numbers.format(20_000, 50_000).replace("1000 bytes", "40000 bytes") in refused(
            await Client(gate, "10.0.0.2").get("/40000")
        )
        for holder in holders:
            holder.reads.set()
            await asyncio.gather(*holder.asked)


async def test_a_caller_who_reads_nothing_leaves_room_for_others() -> None:
    """It leaves room however large the answer is."""
    async with gated(page_bytes_max=100_000) as (gate, _):
        holder = Client(gate)
        holder.ask("/1000000")
        await eventually(lambda: gate.bytes_held == 1_000_000)
        assert 200 == (await Client(gate, "10.0.0.2").get("/50000"))["status"]
        holder.reads.set()
        await asyncio.gather(*holder.asked)


async def test_a_small_answer_needs_no_room() -> None:
    """Its caller's own large one is not in its way."""
    async with gated(page_bytes_max=100_000, pages_max=100) as (gate, _):
        holder = Client(gate)
        holder.ask("/1000000")
        await eventually(lambda: gate.bytes_held == 1_000_000)
        assert 200 == (await Client(gate, port=2).get("/1000"))["status"]
        assert "the answer has 1001 bytes" in refused(await Client(gate, port=2).get("/1001"))
        holder.reads.set()
        await asyncio.gather(*holder.asked)


async def test_places_and_bytes_are_given_back() -> None:
    """They are if the page fails, and if its request is cancelled while its answer waits."""
    async with gated() as (gate, _):
        with pytest.raises(ZeroDivisionError):
            await Client(gate).get("/defect")
        holder = Client(gate)
        holder.ask("/1000")
        await eventually(lambda: gate.bytes_held == 1000)
        holder.asked[0].cancel()
        await asyncio.wait(holder.asked)
        assert (0, 0) == (gate.pages, gate.bytes_held)
        assert (0, 0, 0) == (len(gate._by_connection), len(gate._by_address), len(gate._large_bytes))


async def test_health_is_always_answered() -> None:
    """It is answered with every place taken."""
    async with gated(pages_max=1) as (gate, _):
        holder = Client(gate)
        holder.ask()
        await eventually(lambda: gate.pages == 1)
        assert 503 == (await Client(gate).get())["status"]
        assert (200, b"healthz") == ((answer := await Client(gate).get("/healthz"))["status"], answer["body"])
        holder.reads.set()
        await asyncio.gather(*holder.asked)


STATIC: Final = "/static-offline-docs/swagger-ui-bundle.js"


async def test_pages_that_nobody_reads_take_no_descriptors() -> None:
    """17 connections of HTTP/2 with a window of zero ask for static pages, 20 each: that took a descriptor a stream, and the
    bytes of each file. An honest sender and /healthz are answered beside them."""
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(http_receivers(with_pages=True, page_bytes_max="1 GiB"))
        honest = await stack.enter_async_context(httpx.AsyncClient(base_url=made.url))
        whole = await honest.get(STATIC)
        assert 200 == whole.status_code
        clients = [await stack.enter_async_context(http2(made.port, acknowledges=False)) for _ in range(17)]
        for client in clients:
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
            client.flush()
        await eventually(lambda: made.server is not None and made.server.connection_count() == 18)
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many
        tracemalloc.start()
        for client in clients:
            for _ in range(20):
                client.request(STATIC, "", b"", method="GET")
        await eventually(
            lambda: counted(made.metrics, "infrasage_requests_refused_total", reason="overloaded") == 17 * 20 - 128
        )
        taken_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert descriptors == len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as above
        assert taken_bytes < 8 * 1024 * 1024
        assert 200 == (await honest.get("/healthz")).status_code
        sent = await honest.post("/v1/logs", content=otlp_logs(), headers={"content-type": "application/x-protobuf"})
        assert 200 == sent.status_code
        assert 503 == (await honest.get("/metrics")).status_code, "the same address has its half"


async def test_a_query_of_many_parts_is_refused() -> None:
    """60 KB of them took 11 ms of the event loop, for any client."""
    async with gated() as (gate, metrics):
        client = Client(gate)
        for query, what in (
            (b"a=1" + b"&a=1" * 257, "257 parameters; at most 256"),
            (b"%41" * 8193, "8193 escapes; at most 8192"),
        ):
            answer = await client.get(query=query)
            assert 400 == answer["status"]
            assert f"the query has {what} are taken" in answer["body"].decode()
        assert 2 == counted(metrics, "infrasage_requests_refused_total", reason="invalid_parameter")
        for query in (b"a=1" + b"&a=1" * 256, b"%41" * 8192):
            assert 200 == (await client.get(query=query))["status"]


async def test_a_page_is_not_answered_once_its_connection_is_gone() -> None:
    """The places of a connection that closes are free at once: nothing can open its windows any more."""
    async with http_receivers(with_pages=True, connection_pages_max=2, body_timeout_s=600) as made:
        async with http2(made.port, acknowledges=False) as client:
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
            client.flush()
            streams = [client.request(STATIC, "", b"", method="GET") for _ in range(3)]
            # The third is refused, and its answer has no window either.
            await eventually(lambda: counted(made.metrics, "infrasage_requests_refused_total", reason="overloaded") == 1)
            client.reset(streams[0])
            await client.read()
            again = client.request("/docs", "", b"", method="GET")
            client.h2.increment_flow_control_window(1 << 20, again)
            client.flush()
            assert 200 == (await client.response(again)).status
        gate: Any = made.app._pages
        await eventually(lambda: (gate.pages, gate.bytes_held) == (0, 0))
