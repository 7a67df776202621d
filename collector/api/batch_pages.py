"""The page about one request: GET /api/v1/batches/{id}.

A tenant's key finds the tenant's own batches, and a key of scope admin finds any batch. For a tenant's key, another tenant's
batch is not found, in the same way as a batch that does not exist.
"""

from collections.abc import Callable
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from adapters.errors import INVALID_PARAMETER, NOT_FOUND, STORE_UNAVAILABLE, RequestRefused
from collector.query.batches import BatchReports, NotKnown
from collector.store.contract import StoreError
from collector.tenancy.identity import Caller

# The slash at the end selects all paths below it.
BATCH_PATHS: Final = frozenset({"/api/v1/batches/"})

_UUID_CHARACTERS: Final = 36


class DeadLettersOfBatch(BaseModel):
    """The dead letters of the request's rejected items."""

    kept: int = Field(examples=[2])
    not_kept: int = Field(description="Items beyond the tenant's cap: counted, but not kept.", examples=[0])
    open: int = Field(examples=[2])
    replayed: int = Field(examples=[0])
    discarded: int = Field(examples=[0])


class BatchAnswer(BaseModel):
    """A request, and the outcome of its items."""

    batch_id: UUID
    tenant: str = Field(examples=["acme"])
    received_at: str = Field(description="RFC 3339.", examples=["2026-04-10T12:00:00.123456789Z"])
    source: str = Field(examples=["otlp"])
    route: str = Field(examples=["/v1/logs"])
    received: int = Field(description="All items: accepted and rejected.", examples=[1002])
    accepted: int = Field(examples=[1000])
    rejected: dict[str, int] = Field(description="Items, by reason.", examples=[{"timestamp_too_old": 2}])
    repaired: dict[str, int] = Field(description="Repairs, by kind.", examples=[{"invalid_text": 1}])
    limited: int = Field(description="Always 0: a request over the plan is refused, and has no batch id.", examples=[0])
    parts: int = Field(description="Messages in the broker that hold the accepted items.", examples=[1])
    state: Literal["in_log", "stored", "stored_in_part"] = Field(
        description="in_log: durable, but not stored yet. stored_in_part: rows are missing, or the store refused some."
    )
    stored: dict[str, int] = Field(description="Stored rows, by table.", examples=[{"otel_logs": 1000}])
    duplicates: int = Field(
        description="Accepted items that were left out, because they were stored with an earlier request.", examples=[0]
    )
    duplicate_of: str | None = Field(
        description="The batch that the duplicates were stored with, if it is known.", examples=[None]
    )
    refused_by_store: int = Field(
        description="Accepted items that the store refused, and that are dead letters now.", examples=[0]
    )
    dead_letters: DeadLettersOfBatch


def batch_pages(reader: Callable[[Request], Caller], reports: BatchReports) -> APIRouter:
    """Return the routes of BATCH_PATHS. `reader` returns the caller of a request, and raises RequestRefused."""
    router = APIRouter(prefix="/batches", tags=["batches"])

    @router.get("/{batch_id}", summary="The outcome of one request", response_model=BatchAnswer)
    async def batch(
        caller: Annotated[Caller, Depends(reader)],
        batch_id: Annotated[
            str, Path(description="X-InfraSage-Batch-Id of the request's answer; over gRPC, in the trailing metadata.")
        ],
    ) -> Response:
        requested_id = _uuid(batch_id)
        try:
            found = await reports.find(requested_id, None if caller.scope.is_admin else caller.tenant)
        except NotKnown as error:
            raise RequestRefused(STORE_UNAVAILABLE, f"batch {requested_id} is not stored: {error}") from error
        except StoreError as error:
            raise RequestRefused(STORE_UNAVAILABLE, f"the store can't be asked: {error}") from error
        if found is None:
            raise RequestRefused(NOT_FOUND, f"there is no batch {requested_id}")
        return JSONResponse(found)

    return router


def _uuid(text: str) -> UUID:
    """Return the UUID that is written with 36 characters. Raises RequestRefused."""
    try:
        found = UUID(text)
        if len(text) != _UUID_CHARACTERS:
            raise ValueError
    except ValueError:
        raise RequestRefused(INVALID_PARAMETER, f"a batch id is a UUID of 36 characters, not {text[:100]!r}") from None
    return found
