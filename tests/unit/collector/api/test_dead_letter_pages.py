"""The pages about dead letters: who may ask, and what is wrong with a question. tests/system has their answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from support.fakes.receiving import receivers

from collector.dead_letters.queries import DeadLetterReports
from collector.query.reader import Reader
from collector.store.contract import StoreUnavailable
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

STATS: Final = "/api/v1/debug/dlq-stats"
PAGE: Final = "/api/v1/debug/dlq"
KEYS: Final = {f"acme-{scope}".encode(): Caller("acme", scope, UNLIMITED, "k") for scope in Scope}


class Asked:
    """A store without anything in it, which remembers what it was asked."""

    def __init__(self) -> None:
        self.sql: list[str] = []
        self.is_away = False

    def read(self, sql: str, _format: str) -> bytes:
        self.sql.append(sql)
        if self.is_away:
            raise StoreUnavailable("ClickHouse is away")
        return b'{"by_reason":{},"kept":0,"oldest":null,"newest":null}' if "sumMap" in sql else b""

    async def caught_up(self, _wait_s: float) -> int:
        return 2


@asynccontextmanager
async def asking(store: Asked | None) -> AsyncIterator[httpx.AsyncClient]:
    reports = None if store is None else DeadLetterReports(Reader(store.read, store.caught_up, 1), 30)
    made = receivers(with_pages=True, find=KEYS.get, dead_letters=reports)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made.app), base_url="http://collector") as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str, scope: str | None, **parameters: str) -> httpx.Response:
    headers = {} if scope is None else {"X-API-Key": f"acme-{scope}"}
    return await client.get(path, headers=headers, params=parameters)


@pytest.mark.parametrize("path", [STATS, PAGE])
async def test_who_may_ask(path: str) -> None:
    """Who reads: its own tenant; an admin: everyone, or whom it names."""
    store = Asked()
    async with asking(store) as client:
        for scope, status, error in ((None, 401, "missing_api_key"), ("ingest", 403, "insufficient_scope")):
            answer = await ask(client, path, scope)
            assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert (await ask(client, path, "readonly", tenant="other")).status_code == 403
        assert store.sql == []
        for scope, parameters, whose in (
            ("readonly", {}, "acme"),
            ("write", {"tenant": "acme"}, "acme"),
            ("admin", {"tenant": "oth'er"}, r"oth\'er"),
            ("admin", {}, None),
        ):
            answer = await ask(client, path, scope, **parameters)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-infrasage-messages-behind"] == "2"
            for sql in store.sql:
                assert (whose is None and "TenantId =" not in sql) or f"TenantId = '{whose}'" in sql
            store.sql.clear()


async def test_without_any_there_are_none() -> None:
    """The empty values are exact to the letter."""
    async with asking(Asked()) as client:
        assert (await ask(client, STATS, "readonly")).json() == {
            "total_failed": 0,
            "by_reason": {},
            "oldest_entry": None,
            "newest_entry": None,
            "not_kept": 0,
            "open": 0,
        }
        assert (await ask(client, PAGE, "readonly")).json() == {"entries": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"limit": "0"}, "limit must be a whole number from 1 to 500, not '0'"),
        ({"limit": "501"}, "limit must be a whole number from 1 to 500, not '501'"),
        ({"limit": "ten"}, "limit must be a whole number from 1 to 500, not 'ten'"),
        ({"cursor": "1.2"}, "cursor must be next_cursor of the page before"),
        ({"cursor": f"{2**63}.8d68a96f-b5a9-88a8-a9e8-1202c1248f72"}, "cursor must be next_cursor of the page before"),
        ({"reason": "not_found"}, "reason must be one that items are refused for (docs/use/api.md), not 'not_found'"),
        ({"state": "closed"}, "state must be one of open, rejected_again, replayed, discarded, not 'closed'"),
        ({"since": "yesterday"}, "since must be RFC 3339, as 2026-04-10T12:00:00Z, not 'yesterday'"),
        ({"until": "2026-04-10T12:00:00"}, "until must be RFC 3339, as 2026-04-10T12:00:00Z, not '2026-04-10T12:00:00'"),
        (
            {"since": "9999-12-31T23:59:59Z"},
            "since must be from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z, the times that the store can hold, not"
            " '9999-12-31T23:59:59Z'",
        ),
        (
            {"until": "0001-01-01T00:00:00Z"},
            "until must be from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z, the times that the store can hold, not"
            " '0001-01-01T00:00:00Z'",
        ),
        ({"service_id": "x" * 1001}, "service_id must have at most 1000 characters; it has 1001"),
    ],
)
async def test_a_parameter_that_is_not_allowed_is_named(parameters: dict[str, Any], said: str) -> None:
    """The answer has the API's own form."""
    store = Asked()
    async with asking(store) as client:
        answer = await ask(client, PAGE, "readonly", **parameters)
        assert answer.status_code == 400
        assert answer.json() == {"status": "error", "error": "invalid_parameter", "message": said}
        assert store.sql == []


@pytest.mark.parametrize("path", [STATS, PAGE])
async def test_a_store_that_is_not_there(path: str) -> None:
    """503, and what to do: where there is none to ask, which setting names it."""
    store = Asked()
    store.is_away = True
    async with asking(store) as client:
        answer = await ask(client, path, "readonly")
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert "ClickHouse is away" in answer.json()["message"]
    async with asking(None) as client:
        answer = await ask(client, path, "readonly")
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert "clickhouse.url" in answer.json()["message"]
