"""The pages that need a key that may read.

Invariants:
1. An answer shows the key's own tenant only. A key of scope admin may name another tenant, and reads all tenants' dead letters,
   batches and live records (test_another_tenant_is_for_admins).
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
    """What a plan allows of requests, items or bytes."""

    per_s: int = Field(description="The rate per second.", examples=[10])
    burst: int = Field(description="At once, after a pause.", examples=[10])


class PlanAnswer(BaseModel):
    """The limits of a plan; null: no limit."""

    name: str = Field(examples=["Free"])
    requests: RateAnswer | None
    items: RateAnswer | None
    bytes: RateAnswer | None = Field(description="Bytes of rows, or of decompressed bodies if those are more.")


class UsageAnswer(BaseModel):
    """The usage of a tenant since the gateway's start."""

    tenant: str = Field(examples=["acme"])
    plan: PlanAnswer | None = Field(description="The plan of the request's key; null if another tenant is asked for.")
    since: datetime = Field(description="The gateway's start.")
    requests: dict[str, int] = Field(examples=[{"accepted": 1200, "refused": 1, "failed": 0}])
    items: dict[str, int] = Field(examples=[{"accepted": 60000, "rejected": 12, "rate_limited": 0, "failed": 0}])
    bytes: int = Field(description="Bytes of the decompressed bodies of accepted requests.", examples=[12000000])
    limited: dict[str, int] = Field(
        description="Requests that exceeded the plan, by the limit that they exceeded.",
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
    """Return the routes of READING_PATHS.

    `gather` returns the metrics of all processes, with every tenant under its own name. `began` is the gateway's start.
    `dead_letters` is None if there is no store. `live` answers with the live records of all processes."""
    # These are for the OpenAPI document only. The key is found as everywhere else, by key_of.
    declared = [
        Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
        Depends(HTTPBearer(auto_error=False, description="The same key.")),
    ]
    router = APIRouter(prefix="/api/v1", dependencies=declared)

    def reader(request: Request) -> Caller:
        """Return the caller of a request, whose key must be one that reads. Raises RequestRefused."""
        caller = access.reader(key_of(_header(request, "x-api-key"), _header(request, "authorization")))
        request.scope[CALLER] = caller.tenant
        return caller

    @router.get("/usage", tags=["tenants"], summary="The usage of your tenant, and the requests that were limited")
    async def usage(
        caller: Annotated[Caller, Depends(reader)],
        tenant: Annotated[str | None, Query(description="Another tenant, which needs a key of scope admin.")] = None,
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
    """Return the tenant that an answer is about: `tenant`, or if that is None the caller's. Raises RequestRefused if the caller
    may not read it."""
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if not caller.scope.is_admin:
        raise RequestRefused(
            INSUFFICIENT_SCOPE, f"a key with scope {caller.scope} reads its own tenant only; another's needs scope admin"
        )
    return tenant


def _header(request: Request, name: str) -> bytes | None:
    """Return the values of a header, joined by commas; None if there is none."""
    values = [value for header, value in request.scope["headers"] if header == name.encode()]
    return b", ".join(values) if values else None


def _plan_answer(plan: Plan) -> PlanAnswer:
    rates: dict[str, Any] = {
        dimension: None if rate is None else RateAnswer(per_s=rate.per_s, burst=rate.burst)
        for dimension, rate in zip(DIMENSIONS, plan.rates, strict=True)
    }
    return PlanAnswer(name=plan.name, **rates)
