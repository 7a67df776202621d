"""The page of live records: GET /api/v1/tail, which a watching client requests again and again."""

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
    """A sample of the items that were accepted, or rejected, since the previous request; the oldest first."""

    records: list[dict[str, Any]] = Field(
        description="Each has received, tenant, type and service. An accepted record also has time, attributes, and the"
        " fields of its type (body and severity; name and duration_ns; name, kind and value). A rejected one has reason,"
        " message and index.",
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
    left_out: int = Field(description="Items that were left out of the sample.", examples=[0])


def live_pages(reader: Callable[[Request], Caller], asked: Callable[[Caller, str], str], answering: Answering) -> APIRouter:
    """Return the routes of LIVE_PATHS. `reader` and `asked` are as in dead_letter_pages. `answering` returns the live records
    of all processes."""
    router = APIRouter(tags=["live records"])

    @router.get("/tail", summary="Records as they are accepted or rejected", response_model=LiveRecordsAnswer)
    async def tail(
        caller: Annotated[Caller, Depends(reader)],
        watch: Annotated[
            str,
            Query(
                description="A random name, the same in each request. The first begins the watch; it ends 10 s after the last."
            ),
        ],
        tenant: Annotated[str | None, Query(description="One tenant only; another than the key's needs scope admin.")] = None,
        service_id: Annotated[str | None, Query()] = None,
        type: Annotated[str | None, Query(description="metric, log, trace, event, profile or slo.")] = None,  # noqa: A002
        rejected: Annotated[str, Query(description="1: rejected items instead of accepted ones.")] = "0",
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
        # The name of a watch includes its tenant, so that no other tenant can end or empty it.
        asker = None if caller.scope.is_admin else caller.tenant
        own = question._replace(name=f"{whose or '*'}/{question.name}", asker=asker)
        try:
            answer = await answering(own)
        except TooManyWatches as error:
            raise RequestRefused(OVERLOADED, str(error)) from error
        return _document(answer.records, answer.left_out)

    return router


def _document(records: list[dict[str, Any]], left_out: int) -> Response:
    # The JSON is ASCII, as for dead letters: a sender's text may have halves of surrogates.
    return Response(json.dumps({"records": records, "left_out": left_out}), media_type="application/json")
