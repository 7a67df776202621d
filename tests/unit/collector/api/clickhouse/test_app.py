"""collector/api/clickhouse/app.py: whose queries are read and answered."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp
from support.fakes.receiving import EXPLAIN
from support.waiting import eventually

from collector.api.clickhouse.app import ClickHouseApi
from collector.api.clickhouse.turns import QueryTurns
from collector.config.receivers import Http
from collector.receivers.http.page_gate import PageGate
from collector.store.contract import Answered, Question
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope


def _reader(key: bytes) -> Caller | None:
    """Each key is of the tenant that it names, but for one."""
    if key == b"unknown":
        return None
    return Caller(key.decode(), Scope.READONLY, UNLIMITED, key.decode())


async def _caught_up(_wait_s: float) -> int:
    return 0


async def _ask(api: ASGIApp, tenant: str, reads: asyncio.Event | None = None, sends: asyncio.Event | None = None) -> int:
    """Send a query with the tenant's key; the status of its answer, whose body is taken once `reads` is set. The query is sent
    once `sends` is."""
    sent: list[Any] = []

    async def receive() -> Any:
        if sends is not None:
            await sends.wait()
        return {"type": "http.request", "body": b"SELECT 1", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)
        if reads is not None and message["type"] == "http.response.body":
            await reads.wait()

    scope = {
        "type": "http",
        "client": ("10.0.0.1", 1),
        "path": "/",
        "method": "POST",
        "http_version": "1.1",
        "query_string": b"",
        "headers": [],
    }
    await api({**scope, "headers": [(b"x-clickhouse-key", tenant.encode())]}, receive, send)
    status: int = sent[0]["status"]
    return status


def _api(answer: Callable[[Question], Answered], connections_max: int = 64) -> ClickHouseApi:
    return ClickHouseApi(
        Access(_reader, None),
        answer,
        _caught_up,
        version="1",
        timezone="UTC",
        sql_bytes_max=1000,
        turns=QueryTurns(2, 8, 60),
        connections_max=connections_max,
        wait_s=0,
        body_timeout_s=10,
    )


async def test_an_answer_that_is_not_read_keeps_none_from_another_tenant() -> None:
    """It is larger than all pages may be; both tenants are behind one proxy, and so of one address."""
    api = _api(lambda _: Answered(b"x" * 200_000, "TabSeparated"))
    gate = PageGate(api, Http(page_bytes_max=100_000), Metrics(), EXPLAIN)
    reads = asyncio.Event()
    slow = asyncio.create_task(_ask(gate, "slow", reads))
    await eventually(lambda: gate.bytes_held == 200_000)
    assert 503 == await _ask(gate, "slow")
    assert 200 == await _ask(gate, "other")
    reads.set()
    assert 200 == await slow
    api.close()


async def test_who_sends_no_query_leaves_room_for_others() -> None:
    """Without a key nobody is waited for. With one, at most half of the connections are, and then there is room again."""
    api = _api(lambda _: Answered(b"1\n", "TabSeparated"), connections_max=8)
    never = asyncio.Event()
    async with asyncio.timeout(20):
        assert 403 == await _ask(api, "unknown", sends=never)
        sends = asyncio.Event()
        slow = [asyncio.create_task(_ask(api, "slow", sends=sends)) for _ in range(4)]
        await eventually(lambda: api.open_queries == 4)
        assert 503 == await _ask(api, "slow", sends=never)
        assert 200 == await _ask(api, "other")
        sends.set()
        assert [200] * 4 == await asyncio.gather(*slow)
        assert 200 == await _ask(api, "slow")
    api.close()
