"""GET /api/v1/usage: what a tenant has used, shown to its own keys and to an admin's."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from support.fakes.receiving import ANONYMOUS, Receivers, otlp_logs, receivers

from collector.broker.contract import BrokerDown
from collector.rate_limit.local import LocalLimiter
from collector.receivers.http.page_gate import CALLER
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED, Plan, Rate
from collector.tenancy.scopes import Scope

USAGE: Final = "/api/v1/usage"
SMALL: Final = Plan("Small", requests=Rate(1, 5), items=Rate(1, 100), size_bytes=None)
# Each key is its tenant's and its scope's: acme-write.
KEYS: Final = {
    f"{tenant}-{scope}".encode(): Caller(tenant, scope, plan, "k")
    for tenant, plan in (("acme", SMALL), ("other", UNLIMITED))
    for scope in Scope
}


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[tuple[Receivers, httpx.AsyncClient]]:
    made = receivers(with_pages=True, find=KEYS.get, limiter=LocalLimiter(lambda: 0), **settings)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made.app), base_url="http://collector") as client:
        yield made, client


async def usage(client: httpx.AsyncClient, key: str, **parameters: str) -> Mapping[str, Any]:
    answer = await client.get(USAGE, headers={"X-API-Key": key}, params=parameters)
    assert answer.status_code == 200, answer.text
    document: Mapping[str, Any] = answer.json()
    return document


async def send(client: httpx.AsyncClient, key: str | None, body: bytes) -> int:
    headers = {"Content-Type": "application/x-protobuf"} | ({} if key is None else {"X-API-Key": key})
    return (await client.post("/v1/logs", content=body, headers=headers)).status_code


async def test_what_was_used_is_answered_to_the_letter() -> None:
    """Plan, requests, items, bytes and what was limited, since the start; and nothing of anyone else's."""
    async with asking() as (made, client):
        body = otlp_logs(good=7, late=2)
        assert await send(client, "acme-ingest", body) == 200
        assert await send(client, "acme-ingest", b"\xff") == 400
        assert await send(client, "acme-ingest", otlp_logs(good=101)) == 413
        made.producer.error = BrokerDown("x")
        assert await send(client, "acme-ingest", otlp_logs(good=5)) == 503
        made.producer.error = None
        assert await send(client, "acme-ingest", otlp_logs(good=95)) == 429
        assert await send(client, "acme-ingest", otlp_logs()) == 200
        assert await send(client, "acme-ingest", otlp_logs()) == 200
        assert await send(client, "acme-ingest", otlp_logs()) == 429
        assert await send(client, "other-ingest", body) == 200
        assert await send(client, None, body) == 200
        assert await usage(client, "acme-readonly") == {
            "tenant": "acme",
            "plan": {
                "name": "Small",
                "requests": {"per_s": 1, "burst": 5},
                "items": {"per_s": 1, "burst": 100},
                "bytes": None,
            },
            "since": "2026-04-10T11:00:00Z",
            "requests": {"accepted": 3, "rejected": 0, "refused": 2, "failed": 1},
            "items": {"accepted": 9, "rejected": 2, "rate_limited": 196, "failed": 5},
            "bytes": len(body) + 2 * len(otlp_logs()),
            "limited": {"requests": 1, "items": 1, "bytes": 0},
        }


async def test_who_has_sent_nothing_has_used_nothing() -> None:
    async with asking() as (_, client):
        document = await usage(client, "other-readonly")
        assert document["plan"] == {"name": "Unlimited", "requests": None, "items": None, "bytes": None}
        assert document["requests"] == {"accepted": 0, "rejected": 0, "refused": 0, "failed": 0}
        assert document["items"] == {"accepted": 0, "rejected": 0, "rate_limited": 0, "failed": 0}
        assert document["bytes"] == 0
        assert document["limited"] == {"requests": 0, "items": 0, "bytes": 0}


@pytest.mark.parametrize("scope", [Scope.READONLY, Scope.WRITE])
async def test_another_tenant_is_for_admins(scope: Scope) -> None:
    """Its own may be named; another's, or one that does not exist, is refused alike."""
    async with asking() as (_, client):
        assert (await usage(client, f"acme-{scope}", tenant="acme"))["tenant"] == "acme"
        for tenant in ("other", "nobody", ""):
            answer = await client.get(USAGE, headers={"X-API-Key": f"acme-{scope}"}, params={"tenant": tenant})
            assert answer.status_code == 403
            assert answer.headers["www-authenticate"].endswith('error="insufficient_scope"')
            assert answer.json() == {
                "status": "error",
                "error": "insufficient_scope",
                "message": f"a key with scope {scope} reads its own tenant only; another's needs scope admin",
            }


async def test_an_admin_reads_any_tenant() -> None:
    """The plan of another tenant is not known: its keys may be on several."""
    async with asking() as (_, client):
        assert await send(client, "other-ingest", otlp_logs(good=3)) == 200
        assert await send(client, None, otlp_logs(good=4)) == 200
        for tenant, items in (("other", 3), (ANONYMOUS.tenant, 4), ("nobody", 0)):
            document = await usage(client, "acme-admin", tenant=tenant)
            assert (document["tenant"], document["plan"]) == (tenant, None)
            assert document["items"]["accepted"] == items


async def test_a_tenant_that_metrics_do_not_name_reads_its_usage() -> None:
    """Which tenants /metrics shows by name changes nothing of what each reads of itself."""
    async with asking(tenants_shown_max=0) as (_, client):
        assert await send(client, "acme-ingest", otlp_logs(good=3)) == 200
        assert 'tenant="acme"' not in (await client.get("/metrics")).text
        assert (await usage(client, "acme-readonly"))["items"]["accepted"] == 3


async def test_an_answer_is_its_tenants() -> None:
    """The gate of all pages counts its bytes as the tenant's, not as the address's."""
    made = receivers(with_pages=True, find=KEYS.get, limiter=LocalLimiter(lambda: 0))
    callers: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await made.app(scope, receive, send)
        callers.append(scope.get(CALLER))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
        for key in ("acme-readonly", "other-admin", "unknown"):
            await client.get(USAGE, headers={"X-API-Key": key})
    assert ["acme", "other", None] == callers


async def test_usage_is_what_metrics_show() -> None:
    async with asking() as (made, client):
        for good in (1, 2, 3, 4, 5):
            await send(client, "acme-ingest", otlp_logs(good=good, late=1))
        document = await usage(client, "acme-readonly")
        for status, items in document["items"].items():
            assert made.counted("infrasage_tenant_items_total", tenant="acme", status=status) == items
        assert made.counted("infrasage_tenant_bytes_total", tenant="acme") == document["bytes"]
        for dimension, requests in document["limited"].items():
            assert made.counted("infrasage_tenant_requests_total", tenant="acme", status=f"limited_by_{dimension}") == requests


async def test_only_get_is_for_it() -> None:
    async with asking() as (_, client):
        answer = await client.post(USAGE, headers={"X-API-Key": "acme-admin"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.head(USAGE, headers={"X-API-Key": "acme-admin"})).status_code == 200
        assert (await client.head(USAGE)).status_code == 401


async def test_its_description_says_how_keys_are_sent() -> None:
    """So /docs has a field for one."""
    async with asking() as (_, client):
        document = (await client.get("/openapi.json")).json()
        assert document["paths"][USAGE]["get"]["security"]
        kinds = {scheme["type"] for scheme in document["components"]["securitySchemes"].values()}
        assert kinds == {"apiKey", "http"}
