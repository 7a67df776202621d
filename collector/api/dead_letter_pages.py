"""The pages about dead letters: their number by reason, and a list of them.

Invariants:
1. A tenant's key sees the tenant's own dead letters. A key of scope admin sees all of them, or those of the tenant that the
   request names (test_who_may_ask).
2. An answer contains every dead letter that was acknowledged before the request, or a header says how many messages it lacks
   (test_what_was_acknowledged_is_waited_for).
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from adapters.errors import INVALID_PARAMETER, STORE_UNAVAILABLE, RequestRefused
from collector.dead_letters.filters import PAGE_DEFAULT, PAGE_MAX, Filter
from collector.dead_letters.queries import DeadLetterReports, Page, Stats
from collector.query.times import rfc3339
from collector.store.contract import StoreError
from collector.tenancy.identity import Caller

DEAD_LETTER_PATHS: Final = frozenset({"/api/v1/debug/dlq-stats", "/api/v1/debug/dlq"})
BEHIND_HEADER: Final = "x-infrasage-messages-behind"

NO_STORE: Final = "this gateway has no store: set clickhouse.url (--clickhouse) to the store of its writers"


class StatsAnswer(BaseModel):
    """Counts of all items that were rejected or refused within the retention of dead letters."""

    total_failed: int = Field(description="Items, whether they were kept or not.", examples=[142])
    by_reason: dict[str, int] = Field(
        description="total_failed, by reason.",
        examples=[{"timestamp_too_old": 98, "invalid_value": 31, "missing_service_id": 13}],
    )
    oldest_entry: str | None = Field(
        description="Time of arrival, in RFC 3339; null if there is none.", examples=["2026-04-09T08:00:00Z"]
    )
    newest_entry: str | None = Field(examples=["2026-04-10T11:55:00Z"])
    not_kept: int = Field(description="Items of total_failed beyond the tenant's cap: counted, but not kept.", examples=[0])
    open: int = Field(description="Entries that are neither replayed nor discarded.", examples=[142])


class EntryAnswer(BaseModel):
    """A dead letter."""

    id: str
    tenant: str
    received: str | None
    kept: str
    source: str
    type: str
    route: str
    reason: str
    message: str
    service_id: str
    batch_id: str
    item_index: int
    item_count: int
    state: str = Field(description="open, rejected_again (still open), replayed or discarded.")
    payload_form: str
    payload_size_bytes: int
    payload_encoding: str | None = Field(
        description="json, text or base64; null if there is no payload, or if it is too long for a list."
    )
    payload: Any
    decoded: Any = Field(description="The contents of a payload that is a protobuf message, as JSON.")


class PageAnswer(BaseModel):
    """A page of dead letters, the newest first."""

    entries: list[EntryAnswer]
    next_cursor: str | None = Field(description="`cursor` for the next page; null if this is the last page.")


def dead_letter_pages(
    reader: Callable[[Request], Caller], asked: Callable[[Caller, str], str], reports: DeadLetterReports | None
) -> APIRouter:
    """Return the routes of DEAD_LETTER_PATHS. `reader` returns the caller of a request. `asked` returns the tenant that the
    caller asks for, if the caller may do so. Both raise RequestRefused. `reports` is None if there is no store."""
    router = APIRouter(prefix="/debug", tags=["dead letters"])

    def known() -> DeadLetterReports:
        """Return the reports. Raises RequestRefused if there is no store."""
        if reports is None:
            raise RequestRefused(STORE_UNAVAILABLE, NO_STORE)
        return reports

    def seen(caller: Caller, tenant: str | None) -> str | None:
        """Return whose dead letters are shown; None: those of all tenants. Raises RequestRefused."""
        if tenant is None:
            return None if caller.scope.is_admin else caller.tenant
        return asked(caller, tenant)

    @router.get("/dlq-stats", summary="How many items were rejected, by reason", response_model=StatsAnswer)
    async def stats(
        caller: Annotated[Caller, Depends(reader)],
        tenant: Annotated[str | None, Query(description="One tenant only; another than the key's needs scope admin.")] = None,
    ) -> Response:
        whose = seen(caller, tenant)
        with _refusals():
            found, behind = await known().stats(whose)
        return _json(json.dumps(_document(found)), behind)

    # Every parameter is a text here, so that the API reports a wrong one in its own form, and not FastAPI.
    @router.get("/dlq", summary="Dead letters, the newest first", response_model=PageAnswer)
    async def page(
        caller: Annotated[Caller, Depends(reader)],
        tenant: Annotated[str | None, Query(description="One tenant only; another than the key's needs scope admin.")] = None,
        reason: Annotated[str | None, Query(description="The name of a reason.")] = None,
        service_id: Annotated[str | None, Query()] = None,
        since: Annotated[str | None, Query(description="Only entries kept at or after this time, in RFC 3339.")] = None,
        until: Annotated[str | None, Query(description="Only entries kept before this time, in RFC 3339.")] = None,
        state: Annotated[str | None, Query(description="open, rejected_again, replayed or discarded.")] = None,
        limit: Annotated[str, Query(description=f"From 1 to {PAGE_MAX}.")] = str(PAGE_DEFAULT),
        cursor: Annotated[str | None, Query(description="next_cursor of the previous page.")] = None,
    ) -> Response:
        whose = seen(caller, tenant)
        given = {"reason": reason, "service_id": service_id, "since": since, "until": until, "state": state}
        with _refusals():
            found = await known().page(Filter.of(given, whose), _limit(limit), cursor)
        # In a thread: a page of 500 entries takes 150 ms to write.
        return _json(await asyncio.to_thread(_text_of, found), found.messages_behind)

    return router


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raise RequestRefused instead of ValueError, which a wrong parameter raises, and StoreError."""
    try:
        yield
    except ValueError as error:
        raise RequestRefused(INVALID_PARAMETER, str(error)) from error
    except StoreError as error:
        raise RequestRefused(STORE_UNAVAILABLE, f"the store can't be asked: {error}") from error


def _document(stats: Stats) -> dict[str, Any]:
    """Return the contents of StatsAnswer."""
    return {
        "total_failed": stats.total_failed,
        "by_reason": stats.by_reason,
        "oldest_entry": None if stats.oldest_unix_nano is None else rfc3339(stats.oldest_unix_nano),
        "newest_entry": None if stats.newest_unix_nano is None else rfc3339(stats.newest_unix_nano),
        "not_kept": stats.not_kept,
        "open": stats.open,
    }


def _limit(text: str) -> int:
    """Return a number of entries, from 1 to PAGE_MAX. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= PAGE_MAX):
        raise ValueError(f"limit must be a whole number from 1 to {PAGE_MAX}, not {text[:100]!r}")
    return int(text)


def _text_of(page: Page) -> str:
    """Return the answer as JSON, encoded entry by entry, since the encoder holds the interpreter's lock for each call."""
    entries = ", ".join(json.dumps(entry.document()) for entry in page.entries)
    return f'{{"entries": [{entries}], "next_cursor": {json.dumps(page.cursor)}}}'


def _json(text: str, behind: int) -> Response:
    """Return an answer of JSON that lacks `behind` messages, which are not stored yet."""
    # The JSON is ASCII: a sender's text may have halves of surrogates, which JSON can express and UTF-8 can't.
    return Response(text, media_type="application/json", headers={BEHIND_HEADER: str(behind)})
