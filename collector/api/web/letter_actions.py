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

from collector.api.web.shown import Asked, View
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


async def change_listed(asked: Asked, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> View:
    """Replay or discard the chosen entries, or all that match, and return the next page: a confirmation, or the list. Raises
    ValueError, StoreError, BrokerError."""
    do = asked.field("do")
    if do == "edit":
        raise ValueError("only one entry at a time can be edited")
    if do.endswith(_ALL):
        return await _change_matching(asked, reports, replayer)
    try:
        ids = [UUID(text) for text in asked.form.get("id", ())[:LISTED_MAX]]
    except ValueError:
        raise ValueError("an id of a dead letter is a UUID") from None
    entries = await reports.entries(ids, asked.tenant_allowed) if ids else []
    if do == "discard" and entries and not is_confirmed(asked):
        open_ = [entry for entry in entries if entry.is_open]
        counts = Counter(str(entry.row["reason"]) for entry in open_)
        return confirmation(asked, counts, back=_list(asked), ids=[str(entry.id) for entry in open_])
    outcomes = await change(asked, replayer, entries) if entries else []
    return View.redirect(f"{asked.base}{_list(asked, summary(outcomes) or 'unchanged=0')}")


async def change(asked: Asked, replayer: DeadLetterReplayer, entries: Sequence[Entry]) -> list[ReplayOutcome]:
    """Do the action of a form on entries, and return the outcomes. Raises ValueError, StoreError, BrokerError."""
    as_of: AsOf = "received" if asked.field("as_of") == "received" else "now"
    do, actor, note = asked.field("do"), _actor(asked), _note(asked)
    if do == "discard":
        return await replayer.discard(entries, actor=actor, note=note)
    if do == "replay":
        return await replayer.replay(entries, as_of=as_of, actor=actor, note=note)
    if do == "edit":
        payload = asked.field("payload").encode()
        return await replayer.replay(entries, as_of=as_of, actor=actor, note=note, payload=payload)
    raise _unknown(do)


def is_confirmed(asked: Asked) -> bool:
    """Return whether the form was sent from a confirmation."""
    return asked.field("confirmed") == "yes"


def confirmation(asked: Asked, counts: Mapping[str, int], *, back: str, ids: Sequence[str] = (), until: str = "") -> View:
    """Return the page that asks for a confirmation, with the same form.

    `counts` are the entries by reason. `back` is the address of the page to return to if the action is not confirmed. Entries
    that were kept at `until` or later were not counted."""
    return View(
        "confirm.html",
        {
            "do": asked.field("do"),
            "verb": "Discard" if asked.field("do").startswith("discard") else "Replay",
            "counts": dict(sorted(counts.items(), key=lambda item: -item[1])),
            "total": sum(counts.values()),
            "most": MATCHING_MAX,
            "ids": ids,
            "until": until,
            "back": asked.field("back"),
            "cancel": back,
            "note": asked.field("note"),
            "as_of": asked.field("as_of"),
        },
    )


def summary(outcomes: Sequence[ReplayOutcome]) -> str:
    """Return the number of entries by outcome, as a part of an address."""
    return urlencode(Counter(outcome.outcome for outcome in outcomes))


async def _change_matching(asked: Asked, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> View:
    """Replay or discard all entries that the list's filter matches, once that is confirmed, and return the next page.

    Raises ValueError, StoreError, BrokerError."""
    do = asked.field("do").removesuffix(_ALL)
    if do not in ("replay", "discard"):
        raise _unknown(asked.field("do"))
    given = dict(_filters(asked))
    # Entries that come after they were counted are left out.
    given["until"] = until = asked.field("counted_until") or given.get("until") or rfc3339(time.time_ns())
    tenant = asked.tenant_allowed or given.get("tenant")
    which = Filter.of({name: given.get(name) for name in FILTERS}, tenant)
    if not is_confirmed(asked):
        allowed = OPEN_STATES if do == "discard" else (*OPEN_STATES, "discarded")
        states = tuple(state for state in which.states or OPEN_STATES if state in allowed)
        counts = await reports.counts(which._replace(states=states)) if states else {}
        return confirmation(asked, counts, back=_list(asked), until=until)
    filters = {name: given[name] for name in FILTERS if name in given} | ({} if tenant is None else {"tenant": tenant})
    answer = await DeadLetterService(reports, replayer).answer(
        {
            "do": do,
            "filter": filters,
            "limit": MATCHING_MAX,
            "as_of": asked.field("as_of"),
            "actor": _actor(asked),
            "note": _note(asked),
        }
    )
    done: dict[str, Any] = dict(Counter(outcome["outcome"] for outcome in answer["outcomes"])) or {"unchanged": 0}
    return View.redirect(f"{asked.base}{_list(asked, urlencode(done | ({'more': 1} if answer['more'] else {})))}")


def _filters(asked: Asked) -> list[tuple[str, str]]:
    """Return the filters in the query of the list that the form was on, without other parameters."""
    return [(name, value) for name, value in parse_qsl(asked.field("back")) if name in (*FILTERS, "tenant")]


def _list(asked: Asked, done: str = "") -> str:
    """Return the address of the list that the form was on. `done` is a summary to show there."""
    query = "&".join(filter(None, (urlencode(_filters(asked)), done)))
    return f"{LIST}?{query}" if query else LIST


def _actor(asked: Asked) -> str:
    """Return who does the action, as it is kept with the entries."""
    assert asked.caller is not None
    return f"key {asked.caller.key_id} of {asked.caller.tenant}"


def _note(asked: Asked) -> str:
    return asked.field("note")[:1000]


def _unknown(do: str) -> ValueError:
    return ValueError(f"do must be replay, edit or discard, not {do[:100]!r}")
