"""The actions of the forms on the pages of dead letters: on one entry, on chosen entries, or on all that a filter matches.

Invariants:
1. A discard, and a replay of all entries that a filter matches, needs a confirmation. The page for it shows how many entries
   will be changed (test_a_discard_is_confirmed, test_all_that_match_are_counted_first).
2. A confirmed form for a filter changes at most MATCHING_MAX entries, and none that was kept after they were counted
   (test_all_that_match_are_changed_within_bounds).
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from collector.api.web.shown import PageRequest, View
from collector.dead_letters.filters import OPEN_STATES, Filter
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.dead_letters.replay import AsOf, DeadLetterReplayer, ReplayOutcome
from collector.dead_letters.service import DeadLetterService
from collector.query.times import rfc3339

LIST: Final = "/ui/dead-letters"
LISTED_MAX: Final = 50
MATCHING_MAX: Final = 1000
FILTERS: Final = ("reason", "service_id", "since", "until", "state")
_ALL: Final = "_all"


async def change_listed(request: PageRequest, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> View:
    """Replay or discard the chosen entries, or all that match, and return the next page: a confirmation, or the list. Raises
    ValueError, StoreError, BrokerError."""
    do = request.field("do")
    if do == "edit":
        raise ValueError("only one entry at a time can be edited")
    if do.endswith(_ALL):
        return await _change_matching(request, reports, replayer)
    try:
        ids = [UUID(text) for text in request.form.get("id", ())[:LISTED_MAX]]
    except ValueError:
        raise ValueError("an id of a dead letter is a UUID") from None
    entries = await reports.entries(ids, request.tenant_allowed) if ids else []
    if do == "discard" and entries and not is_confirmed(request):
        open_ = [entry for entry in entries if entry.is_open]
        counts = Counter(str(entry.row["reason"]) for entry in open_)
        return confirmation(request, counts, back=_list(request), ids=[str(entry.id) for entry in open_])
    outcomes = await change(request, replayer, entries) if entries else []
    return View.redirect(f"{request.base}{_list(request, summary(outcomes) or 'unchanged=0')}")


async def change(request: PageRequest, replayer: DeadLetterReplayer, entries: Sequence[Entry]) -> list[ReplayOutcome]:
    """Do the action of a form on entries, and return the outcomes. Raises ValueError, StoreError, BrokerError."""
    as_of: AsOf = "received" if request.field("as_of") == "received" else "now"
    do, actor, note = request.field("do"), _actor(request), _note(request)
    if do == "discard":
        return await replayer.discard(entries, actor=actor, note=note)
    if do == "replay":
        return await replayer.replay(entries, as_of=as_of, actor=actor, note=note)
    if do == "edit":
        payload = request.field("payload").encode()
        return await replayer.replay(entries, as_of=as_of, actor=actor, note=note, payload=payload)
    raise _unknown(do)


def is_confirmed(request: PageRequest) -> bool:
    """Return whether the form was sent from a confirmation."""
    return request.field("confirmed") == "yes"


def confirmation(
    request: PageRequest, counts: Mapping[str, int], *, back: str, ids: Sequence[str] = (), until: str = ""
) -> View:
    """Return the page that asks for a confirmation, with the same form.

    `counts` are the entries by reason. `back` is the address of the page to return to if the action is not confirmed. Entries
    that were kept at `until` or later were not counted."""
    return View(
        "confirm.html",
        {
            "do": request.field("do"),
            "verb": "Discard" if request.field("do").startswith("discard") else "Replay",
            "counts": dict(sorted(counts.items(), key=lambda item: -item[1])),
            "total": sum(counts.values()),
            "most": MATCHING_MAX,
            "ids": ids,
            "until": until,
            "back": request.field("back"),
            "cancel": back,
            "note": request.field("note"),
            "as_of": request.field("as_of"),
        },
    )


def summary(outcomes: Sequence[ReplayOutcome]) -> str:
    """Return the number of entries by outcome, as a part of an address."""
    return urlencode(Counter(outcome.outcome for outcome in outcomes))


async def _change_matching(request: PageRequest, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> View:
    """Replay or discard all entries that the list's filter matches, once that is confirmed, and return the next page.

    Raises ValueError, StoreError, BrokerError."""
    do = request.field("do").removesuffix(_ALL)
    if do not in ("replay", "discard"):
        raise _unknown(request.field("do"))
    given = dict(_filters(request))
    # Entries that come after they were counted are left out.
    given["until"] = until = request.field("counted_until") or given.get("until") or rfc3339(time.time_ns())
    tenant = request.tenant_allowed or given.get("tenant")
    which = Filter.of({name: given.get(name) for name in FILTERS}, tenant)
    if not is_confirmed(request):
        allowed = OPEN_STATES if do == "discard" else (*OPEN_STATES, "discarded")
        states = tuple(state for state in which.states or OPEN_STATES if state in allowed)
        counts = await reports.counts(which._replace(states=states)) if states else {}
        return confirmation(request, counts, back=_list(request), until=until)
    filters = {name: given[name] for name in FILTERS if name in given} | ({} if tenant is None else {"tenant": tenant})
    answer = await DeadLetterService(reports, replayer).answer(
        {
            "do": do,
            "filter": filters,
            "limit": MATCHING_MAX,
            "as_of": request.field("as_of"),
            "actor": _actor(request),
            "note": _note(request),
        }
    )
    done: dict[str, Any] = dict(Counter(outcome["outcome"] for outcome in answer["outcomes"])) or {"unchanged": 0}
    return View.redirect(f"{request.base}{_list(request, urlencode(done | ({'more': 1} if answer['more'] else {})))}")


def _filters(request: PageRequest) -> list[tuple[str, str]]:
    """Return the filters in the query of the list that the form was on, without other parameters."""
    return [(name, value) for name, value in parse_qsl(request.field("back")) if name in (*FILTERS, "tenant")]


def _list(request: PageRequest, done: str = "") -> str:
    """Return the address of the list that the form was on. `done` is a summary to show there."""
    query = "&".join(filter(None, (urlencode(_filters(request)), done)))
    return f"{LIST}?{query}" if query else LIST


def _actor(request: PageRequest) -> str:
    """Return who does the action, as it is kept with the entries."""
    assert request.caller is not None
    return f"key {request.caller.key_id} of {request.caller.tenant}"


def _note(request: PageRequest) -> str:
    return request.field("note")[:1000]


def _unknown(do: str) -> ValueError:
    return ValueError(f"do must be replay, edit or discard, not {do[:100]!r}")
