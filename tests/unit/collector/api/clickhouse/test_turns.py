"""collector/api/clickhouse/turns.py: whose statement runs when."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from support.waiting import eventually

from collector.api.clickhouse.turns import QueryOverdue, QueryTurns
from collector.store.contract import StoreUnavailable

NEVER_S = 60.0  # longer than a test


class Statements:
    """Statements that end when they may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.running: list[str] = []
        self.most: dict[str, int] = {}

    def of(self, tenant: str) -> Callable[[], str]:
        def work() -> str:
            self.running.append(tenant)
            self.most[tenant] = max(self.most.get(tenant, 0), self.running.count(tenant))
            self.may_end.wait(NEVER_S)
            self.running.remove(tenant)
            return tenant

        return work


@asynccontextmanager
async def turns(overdue_max: int = 8, time_max_s: float = NEVER_S) -> AsyncIterator[tuple[QueryTurns, Statements]]:
    made, work = QueryTurns(2, overdue_max, time_max_s, grace_s=0.0), Statements()
    try:
        yield made, work
    finally:
        work.may_end.set()
        made.close()


async def test_a_tenants_queries_leave_room_for_anothers() -> None:
    """Ten of one tenant that do not end, and one of another is answered; then the ten are, one after the other."""
    async with turns() as (made, work):
        noisy = [asyncio.create_task(made.run("noisy", "q", work.of("noisy"))) for _ in range(10)]
        await eventually(lambda: work.running == ["noisy"])
        assert 1 == await made.run("quiet", "q", lambda: 1)
        assert not any(task.done() for task in noisy)
        work.may_end.set()
        assert ["noisy"] * 10 == await asyncio.gather(*noisy)
        assert {"noisy": 1} == work.most


async def test_an_overdue_query_keeps_its_tenants_turn_only() -> None:
    """Three tenants hold all places past their time: each gets an error, no other query of theirs runs, and a fourth's does."""
    async with turns(time_max_s=0.2) as (made, work):
        with capture_logs() as lines:
            for tenant in ("a", "b", "c"):
                with pytest.raises(QueryOverdue, match=r"past 0\.2 s \(store\.query_time_max_s\)"):
                    await made.run(tenant, f"query of {tenant}", work.of(tenant))
                with pytest.raises(StoreUnavailable, match="1 queries of this tenant run past"):
                    await made.run(tenant, "q", lambda: 1)
            assert 1 == await made.run("d", "q", lambda: 1)
            assert ["a", "b", "c"] == work.running
            work.may_end.set()
            await eventually(lambda: len(lines) == 6)
        assert [("warning", "query of a", False)] == [
            (line["log_level"], line["query_id"], line["keeps_others_waiting"]) for line in lines[:1]
        ]
        assert {"a", "b", "c"} == {line["tenant"] for line in lines if line["log_level"] == "info"}
        assert 1 == await made.run("a", "q", lambda: 1)


async def test_so_many_overdue_queries_and_no_more() -> None:
    """The second one keeps its place: beside it there is one, and with the third none."""
    async with turns(time_max_s=0.2, overdue_max=1) as (made, work):
        for tenant in ("a", "b"):
            with pytest.raises(QueryOverdue):
                await made.run(tenant, "q", work.of(tenant))
        assert 1 == await made.run("d", "q", lambda: 1)
        with pytest.raises(QueryOverdue):
            await made.run("c", "q", work.of("c"))
        with pytest.raises(StoreUnavailable, match=r"none ended in 0\.2 s"):
            await made.run("d", "q", lambda: 1)
        work.may_end.set()
        await eventually(lambda: not work.running)
        for tenant in ("a", "b", "c", "d"):
            assert 1 == await made.run(tenant, "q", lambda: 1)


async def test_a_client_that_goes_gives_nothing_back() -> None:
    """Its statement runs on, so no other of its tenant begins; when it ends, one does."""
    async with turns() as (made, work):
        gone = asyncio.create_task(made.run("a", "q", work.of("a")))
        await eventually(lambda: work.running == ["a"])
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        waits = asyncio.create_task(made.run("a", "q", work.of("a")))
        for tenant in ("b", "c"):
            assert 1 == await made.run(tenant, "q", lambda: 1)
        work.may_end.set()
        assert "a" == await waits
        assert {"a": 1} == work.most


async def test_what_fails_gives_its_turn_back() -> None:
    """An error is its asker's, and the next one runs."""

    def fail() -> None:
        raise ValueError("no")

    async with turns() as (made, _work):
        for _ in range(5):
            with pytest.raises(ValueError, match="no"):
                await made.run("a", "q", fail)
        assert 1 == await made.run("a", "q", lambda: 1)


async def test_who_reads_everything_has_all_places() -> None:
    async with turns() as (made, work):
        tasks = [asyncio.create_task(made.run(None, "q", work.of("all"))) for _ in range(3)]
        await eventually(lambda: len(work.running) == 2)
        work.may_end.set()
        assert ["all"] * 3 == await asyncio.gather(*tasks)
