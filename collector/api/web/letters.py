"""Dead letters on web pages: a list with filters, one entry with its payload, and what is done about them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from adapters.errors import INVALID_JSON, NOT_FOUND, REASON, REASONS, RequestRefused
from collector.api.web.rendering import as_json
from collector.api.web.shown import Asked, View
from collector.dead_letters.payloads import REQUEST
from collector.dead_letters.queries import STATES, DeadLetterReports, Entry, Filter
from collector.dead_letters.replay import AsOf, DeadLetterReplayer, ReplayOutcome

LISTED_MAX: Final = 50
# Longer payloads are shown in part, and edited with the dlq commands.
_SHOWN_BYTES_MAX: Final = 256 * 1024
_TREE: Final = "/ui/dead-letters/"
_UUID_CHARACTERS: Final = 36
_FILTERS: Final = ("reason", "service_id", "since", "until", "state")
_REASONS: Final = tuple(reason.name for reason in REASONS if reason.code < INVALID_JSON)
_REMEDIES: Final = {reason.name: reason.remedy for reason in REASON.values()}
_OUTCOMES: Final = ("replayed", "rejected_again", "discarded", "unchanged")


def id_in(path: str) -> UUID | None:
    """The id of the entry that a page is about; None: it is about none."""
    text = path.removeprefix(_TREE)
    if text == path or len(text) != _UUID_CHARACTERS:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


async def listed(asked: Asked, reports: DeadLetterReports) -> View:
    """The newest first. Raises ValueError, StoreError."""
    given = {name: asked.query.get(name) or None for name in _FILTERS}
    found = await reports.page(Filter.of(given, asked.tenant), LISTED_MAX, asked.query.get("cursor") or None, 0)
    kept = {name: value for name, value in asked.query.items() if name not in ("cursor", *_OUTCOMES)}
    following = None if found.cursor is None else urlencode({**kept, "cursor": found.cursor})
    return View(
        "dead_letters.html",
        {
            "entries": [entry.row for entry in found.entries],
            "next_query": following,
            "behind": found.messages_behind,
            "given": {**dict.fromkeys((*_FILTERS, "tenant"), ""), **kept},
            "reasons": _REASONS,
            "states": STATES,
            "done": _done(asked.query),
            "back": urlencode(kept),
        },
    )


async def shown_entry(asked: Asked, reports: DeadLetterReports, form_bytes_max: int) -> View:
    """One entry. Raises RequestRefused, StoreError."""
    entry = await _entry(asked, reports)
    row = entry.row
    document = entry.document()
    payload = document["decoded"] if document["decoded"] is not None else document["payload"]
    text = payload if isinstance(payload, str) else "" if payload is None else as_json(payload)
    is_whole = len(text) <= _SHOWN_BYTES_MAX and (entry.payload is None or len(entry.payload) >= int(row["payload_size_bytes"]))
    is_text = document["decoded"] is not None or document["payload_encoding"] in ("json", "text")
    return View(
        "dead_letter.html",
        {
            "row": row,
            "entry": document,
            "text": text[:_SHOWN_BYTES_MAX],
            "is_whole": is_whole,
            # A form's percent-encoding takes up to three bytes for each.
            "is_editable": is_whole
            and is_text
            and row["payload_form"] != REQUEST
            and 3 * len(text.encode("utf-8", "replace")) < form_bytes_max,
            "is_replayable": row["payload_form"] != REQUEST,
            "is_open": entry.is_open,
            "remedy": _REMEDIES.get(row["reason"], ""),
            "done": _done(asked.query),
        },
    )


async def change_entry(asked: Asked, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> View:
    """Replay, edit and replay, or discard one entry. Raises RequestRefused, ValueError, StoreError, BrokerError."""
    entry = await _entry(asked, reports)
    outcomes = await _change(asked, replayer, [entry])
    return View.redirect(f"{asked.base}{_TREE}{entry.id}?{_summary(outcomes)}")


async def change_listed(asked: Asked, reports: DeadLetterReports, replayer: DeadLetterReplayer) -> View:
    """Replay or discard the entries that are ticked. Raises as `change_entry`."""
    if asked.field("do") == "edit":
        raise ValueError("an edited payload is for one entry")
    try:
        ids = [UUID(text) for text in asked.form.get("id", ())[:LISTED_MAX]]
    except ValueError:
        raise ValueError("an id of a dead letter is a UUID") from None
    entries = await reports.entries(ids, asked.tenant_allowed) if ids else []
    outcomes = await _change(asked, replayer, entries) if entries else []
    back = asked.field("back")
    return View.redirect(f"{asked.base}{_TREE[:-1]}?{_filters_only(back)}{_summary(outcomes) or 'unchanged=0'}")


async def _entry(asked: Asked, reports: DeadLetterReports) -> Entry:
    """Raises RequestRefused where there is none that the key may see."""
    wanted = id_in(asked.path)
    assert wanted is not None
    found = await reports.entries([wanted], asked.tenant_allowed)
    if not found:
        raise RequestRefused(NOT_FOUND, f"there is no dead letter {wanted}")
    return found[0]


async def _change(asked: Asked, replayer: DeadLetterReplayer, entries: Sequence[Entry]) -> list[ReplayOutcome]:
    """Raises ValueError, StoreError, BrokerError."""
    assert asked.caller is not None
    actor, note = f"key {asked.caller.key_id} of {asked.caller.tenant}", asked.field("note")[:1000]
    as_of: AsOf = "received" if asked.field("as_of") == "received" else "now"
    do = asked.field("do")
    if do == "discard":
        return await replayer.discard(entries, actor=actor, note=note)
    if do == "replay":
        return await replayer.replay(entries, as_of=as_of, actor=actor, note=note)
    if do == "edit":
        payload = asked.field("payload").encode()
        return await replayer.replay(entries, as_of=as_of, actor=actor, note=note, payload=payload)
    raise ValueError(f"what to do must be replay, edit or discard, not {do[:100]!r}")


def _summary(outcomes: Sequence[ReplayOutcome]) -> str:
    return urlencode(Counter(outcome.outcome for outcome in outcomes))


def _filters_only(back: str) -> str:
    """What of a query the list itself made: it goes into a link of ours."""
    kept = {name: value for name, value in parse_qsl(back) if name in (*_FILTERS, "tenant")}
    return f"{urlencode(kept)}&" if kept else ""


def _done(query: Mapping[str, str]) -> dict[str, int]:
    """What the last form did, by outcome, as the address says."""
    return {name: int(query[name]) for name in _OUTCOMES if query.get(name, "").isdecimal() and len(query[name]) < 6}
