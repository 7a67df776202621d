"""The pages that need a key which may read.

Invariants:
1. An answer is about the key's own tenant. Only an admin's key may name another tenant (test_another_tenant_is_for_admins).
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, Field

from adapters.errors import INSUFFICIENT_SCOPE, RequestRefused
from collector.api.batch_pages import BATCH_PATHS, batch_pages
from collector.api.dead_letter_pages import DEAD_LETTER_PATHS, dead_letter_pages
from collector.api.live_pages import LIVE_PATHS, live_pages
from collector.dead_letters.queries import DeadLetterReports
from collector.query.batches import BatchReports
from collector.query.live_records import Answering, LiveRecords
from collector.query.recent_batches import RecentBatches
from collector.receivers.http.page_gate import CALLER
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.tenant_usage import usage_of
from collector.tenancy.access import Access, key_of
from collector.tenancy.identity import Caller
from collector.tenancy.plans import DIMENSIONS, Plan

READING_PATHS: Final = frozenset({"/api/v1/usage", *DEAD_LETTER_PATHS, *BATCH_PATHS, *LIVE_PATHS})


class RateAnswer(BaseModel):
    """What a plan allows of one thing."""

    per_s: int = Field(description="Every second.", examples=[10])
    burst: int = Field(description="At once, after a pause.", examples=[10])


class PlanAnswer(BaseModel):
    """What the plan allows; null: any number."""

    name: str = Field(examples=["Free"])
    requests: RateAnswer | None
    items: RateAnswer | None
    bytes: RateAnswer | None = Field(description="Of bodies, decompressed.")


class UsageAnswer(BaseModel):
    """What a tenant has used since the gateway's start."""

    tenant: str = Field(examples=["acme"])
    plan: PlanAnswer | None = Field(description="The asking key's; null where another tenant is asked for.")
    since: datetime = Field(description="The gateway's start.")
    requests: dict[str, int] = Field(examples=[{"accepted": 1200, "refused": 1, "failed": 0}])
    items: dict[str, int] = Field(examples=[{"accepted": 60000, "rejected": 12, "rate_limited": 0, "failed": 0}])
    bytes: int = Field(description="Of accepted requests' bodies, decompressed.", examples=[12000000])
    limited: dict[str, int] = Field(
        description="Requests that were over the plan, by what there was too much of.",
        examples=[{"requests": 17, "items": 0, "bytes": 0}],
    )


def reading(
    access: Access,
    gather: Callable[[], Awaitable[Snapshot]],
    began: datetime,
    dead_letters: DeadLetterReports | None = None,
    batches: BatchReports | None = None,
    live: Answering | None = None,
) -> APIRouter:
    """Routes of READING_PATHS. `gather`: the metrics of all processes, with every tenant under its name. `dead_letters`: None
    where there is no store to ask. `live`: answers with the live records of all processes."""
    # Both only for the description: a key is found as everywhere else.
    declared = [
        Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
        Depends(HTTPBearer(auto_error=False, description="The same key.")),
    ]
    router = APIRouter(prefix="/api/v1", dependencies=declared)

    def reader(request: Request) -> Caller:
        """Raises RequestRefused."""
        caller = access.reader(key_of(_header(request, "x-api-key"), _header(request, "authorization")))
        request.scope[CALLER] = caller.tenant
        return caller

    @router.get("/usage", tags=["tenants"], summary="What your tenant has used, and what of it was limited")
    async def usage(
        caller: Annotated[Caller, Depends(reader)],
        tenant: Annotated[str | None, Query(description="Another tenant: for an admin's key.")] = None,
    ) -> UsageAnswer:
        asked = asked_tenant(caller, tenant)
        used = usage_of(await gather(), asked)
        return UsageAnswer(
            tenant=asked,
            plan=_plan_answer(caller.plan) if asked == caller.tenant else None,
            since=began.astimezone(UTC),
            requests=dict(used.requests),
            items=dict(used.items),
            bytes=used.size_bytes,
            limited=dict(used.limited),
        )

    router.include_router(dead_letter_pages(reader, asked_tenant, dead_letters))
    router.include_router(batch_pages(reader, batches or BatchReports(None, RecentBatches(0))))
    router.include_router(live_pages(reader, asked_tenant, live or LiveRecords(time.monotonic).answer))
    return router


def asked_tenant(caller: Caller, tenant: str | None) -> str:
    """Whose data an answer is about. Raises RequestRefused."""
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if not caller.scope.is_admin:
        raise RequestRefused(
            INSUFFICIENT_SCOPE, f"a key with scope {caller.scope} reads its own tenant only; another's needs scope admin"
        )
    return tenant


def _header(request: Request, name: str) -> bytes | None:
    values = [value for header, value in request.scope["headers"] if header == name.encode()]
    return b", ".join(values) if values else None


def _plan_answer(plan: Plan) -> PlanAnswer:
    rates: dict[str, Any] = {
        dimension: None if rate is None else RateAnswer(per_s=rate.per_s, burst=rate.burst)
        for dimension, rate in zip(DIMENSIONS, plan.rates, strict=True)
    }
    return PlanAnswer(name=plan.name, **rates)
