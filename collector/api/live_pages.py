"""The page of live records: GET /api/v1/tail, asked again and again by a client that watches."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from adapters.errors import INVALID_PARAMETER, OVERLOADED, RequestRefused
from collector.query.live_records import LIVE_PATH, Answering, TooManyWatches, question_of
from collector.tenancy.identity import Caller

LIVE_PATHS: Final = frozenset({LIVE_PATH})


class LiveRecordsAnswer(BaseModel):
    """A sample of what was accepted, or rejected, since the question before; the oldest first."""

    records: list[dict[str, Any]] = Field(
        description="Each has received, tenant, type and service. Accepted: time, attributes, and what its type has (body and"
        " severity; name and duration_ns; name, kind and value). Rejected: reason, message and index.",
        examples=[
            [
                {
                    "received": "2026-04-10T12:00:00.120Z",
                    "tenant": "acme",
                    "type": "log",
                    "service": "payment-api",
                    "time": "2026-04-10T12:00:00Z",
                    "severity": "ERROR",
                    "body": "card declined",
                    "trace_id": "",
                    "attributes": {"region": "us-east-1"},
                }
            ]
        ],
    )
    left_out: int = Field(description="Items that were beyond the sample.", examples=[0])


def live_pages(reader: Callable[[Request], Caller], asked: Callable[[Caller, str], str], answering: Answering) -> APIRouter:
    """Routes of LIVE_PATHS. `reader`, `asked`: as of dead_letter_pages. `answering`: what all processes have."""
    router = APIRouter(tags=["live records"])

    @router.get("/tail", summary="Records as they are accepted or rejected", response_model=LiveRecordsAnswer)
    async def tail(
        caller: Annotated[Caller, Depends(reader)],
        watch: Annotated[
            str,
            Query(
                description="A random name, the same in each question. The first begins the watch; it ends 10 s after the last."
            ),
        ],
        tenant: Annotated[str | None, Query(description="One tenant: for an admin's key.")] = None,
        service_id: Annotated[str | None, Query()] = None,
        type: Annotated[str | None, Query(description="metric, log, trace, event, profile or slo.")] = None,  # noqa: A002
        rejected: Annotated[str, Query(description="1: rejected items in place of accepted ones.")] = "0",
    ) -> Response:
        if tenant is None:
            whose = None if caller.scope.is_admin else caller.tenant
        else:
            whose = asked(caller, tenant)
        try:
            if rejected not in ("0", "1"):
                raise ValueError(f"rejected must be 0 or 1, not {rejected[:100]!r}")
            question = question_of(whose, service_id, type, watch, is_rejected=rejected == "1")
        except ValueError as error:
            raise RequestRefused(INVALID_PARAMETER, str(error)) from error
        # A name is its tenant's own: no other can end or empty the watch.
        asker = None if caller.scope.is_admin else caller.tenant
        own = question._replace(name=f"{whose or '*'}/{question.name}", asker=asker)
        try:
            answer = await answering(own)
        except TooManyWatches as error:
            raise RequestRefused(OVERLOADED, str(error)) from error
        return _document(answer.records, answer.left_out)

    return router


def _document(records: list[dict[str, Any]], left_out: int) -> Response:
    # In ASCII, as dead letters are: what a sender wrote may have halves of surrogates.
    return Response(json.dumps({"records": records, "left_out": left_out}), media_type="application/json")
