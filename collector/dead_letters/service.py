"""The requests of the dlq commands and their answers, both JSON. They go to a running collector through its socket, or to the
store and the broker directly.

There is no further permission: a client that can reach this service may do everything.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from collector.dead_letters.filters import OPEN_STATES, Filter
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.dead_letters.replay import AsOf, DeadLetterReplayer, ReplayOutcome, documents

# How many of the entries that a request replays or discards are in memory at once.
_AT_ONCE: Final = 100
_PAYLOAD_BYTES_MAX: Final = 2**62


class InvalidRequest(Exception):
    """The request is invalid. The message contains the reason."""


class DeadLetterService:
    """Answers the requests of the dlq commands."""

    def __init__(self, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> None:
        self._reports: Final = reports
        self._replayer: Final = replayer

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do the action `do` of a request (list, show, replay, discard). Raises InvalidRequest, StoreError, BrokerError."""
        try:
            do = request["do"]
            if do == "list":
                return await self._list(request)
            if do == "show":
                entries = await self._named(request["ids"])
                return {"entries": [entry.document() for entry in entries]}
            if do in ("replay", "discard"):
                return await self._change(request)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        raise InvalidRequest(f"there is no action {do!r} for dead letters")

    async def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        page = await self._reports.page(_filter(request), int(request["limit"]), request.get("cursor"))
        return {
            "entries": [entry.document() for entry in page.entries],
            "next_cursor": page.cursor,
            "messages_behind": page.messages_behind,
        }

    async def _change(self, request: Mapping[str, Any]) -> dict[str, Any]:
        outcomes: list[ReplayOutcome] = []
        ids: Sequence[str] = request.get("ids") or ()
        if ids:
            for start in range(0, len(ids), _AT_ONCE):
                outcomes += await self._do(request, await self._named(ids[start : start + _AT_ONCE]))
            return {"outcomes": documents(outcomes), "more": False}
        which = _filter(request)
        if which.states is None:
            which = which._replace(states=OPEN_STATES)
        limit = int(request["limit"])
        cursor = None
        while len(outcomes) < limit:
            page = await self._reports.page(which, min(_AT_ONCE, limit - len(outcomes)), cursor, _PAYLOAD_BYTES_MAX)
            outcomes += await self._do(request, page.entries)
            cursor = page.cursor
            if cursor is None:
                break
        return {"outcomes": documents(outcomes), "more": cursor is not None}

    async def _do(self, request: Mapping[str, Any], entries: Sequence[Entry]) -> list[ReplayOutcome]:
        if not entries:
            return []
        actor, note = str(request["actor"]), str(request.get("note") or "")
        if request["do"] == "discard":
            return await self._replayer.discard(entries, actor=actor, note=note)
        payload = request.get("payload")
        if payload is not None and len(entries) != 1:
            raise InvalidRequest("an edited payload is for one entry")
        edited = None if payload is None else base64.b64decode(payload)
        as_of: AsOf = "received" if request.get("as_of") == "received" else "now"
        return await self._replayer.replay(entries, as_of=as_of, actor=actor, note=note, payload=edited)

    async def _named(self, ids: Sequence[str]) -> list[Entry]:
        """Return the entries with these ids. Raises InvalidRequest if one does not exist."""
        requested: dict[UUID, None] = {}
        for id_ in ids:
            try:
                requested[UUID(id_)] = None
            except ValueError:
                raise InvalidRequest(f"{id_[:100]!r} is no id of a dead letter: `dlq list` shows them") from None
        entries = await self._reports.entries(list(requested))
        if missing := requested.keys() - {entry.id for entry in entries}:
            raise InvalidRequest(f"there is no dead letter {', '.join(map(str, sorted(missing)))}")
        return entries


def _filter(request: Mapping[str, Any]) -> Filter:
    """Return the filter in a request. Raises ValueError."""
    given: Mapping[str, str | None] = request.get("filter") or {}
    return Filter.of(given, given.get("tenant"))
