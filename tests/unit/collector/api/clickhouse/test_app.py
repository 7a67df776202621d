"""collector/api/clickhouse/app.py: whose query runs when."""

import asyncio
import threading
from typing import Any

from collector.api.clickhouse.app import ClickHouseApi
from collector.store.contract import Answered, Question
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope


def _reader(key: bytes) -> Caller:
    """Each key is of the tenant that it names."""
    return Caller(key.decode(), Scope.READONLY, UNLIMITED, key.decode())


async def _caught_up(_wait_s: float) -> int:
    return 0


async def _ask(api: ClickHouseApi, tenant: str) -> int:
    """Send a query with the tenant's key; the status of its answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"SELECT 1", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"path": "/", "method": "POST", "http_version": "1.1", "query_string": b"", "headers": []}
    await api({**scope, "headers": [(b"x-clickhouse-key", tenant.encode())]}, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_a_tenants_queries_leave_room_for_anothers() -> None:
    """Ten of one tenant that do not end, and one of another is answered; then the ten are, one after the other."""
    running: list[str] = []
    most: list[int] = []
    may_end = threading.Event()

    def answer(question: Question) -> Answered:
        assert question.tenant is not None
        running.append(question.tenant)
        most.append(running.count("noisy"))
        if question.tenant == "noisy":
            may_end.wait(30)
        running.remove(question.tenant)
        return Answered(b"1\n", "TabSeparated")

    api = ClickHouseApi(
        Access(_reader, None),
        answer,
        _caught_up,
        version="1",
        timezone="UTC",
        sql_bytes_max=1000,
        concurrent_max=2,
        wait_s=0,
        body_timeout_s=10,
    )
    noisy = [asyncio.create_task(_ask(api, "noisy")) for _ in range(10)]
    async with asyncio.timeout(20):
        while not running:
            await asyncio.sleep(0.01)
        assert 200 == await _ask(api, "quiet")
    assert not any(task.done() for task in noisy)
    may_end.set()
    assert [200] * 10 == await asyncio.gather(*noisy)
    assert 1 == max(most)
    api.close()
