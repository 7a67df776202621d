"""Dead letters on web pages: a list with filters, and one entry with its payload.

Invariants:
1. If a form fails, the page with the error has the text that was typed (test_what_was_edited_comes_back_with_an_error,
   test_what_was_edited_comes_back_where_it_is_not_taken).
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from adapters.errors import NOT_FOUND, REASON, RequestRefused
from collector.api.web import letter_actions
from collector.api.web.rendering import as_json
from collector.api.web.shown import PageRequest, View
from collector.dead_letters.filters import ITEM_REASONS, STATES, Filter
from collector.dead_letters.payloads import REQUEST
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.dead_letters.replay import DeadLetterReplayer

# Longer payloads are shown in part, and edited with the dlq commands.
_SHOWN_BYTES_MAX: Final = 256 * 1024
_TREE: Final = "/ui/dead-letters/"
_UUID_CHARACTERS: Final = 36
_REMEDIES: Final = {reason.name: reason.remedy for reason in REASON.values()}
_OUTCOMES: Final = ("replayed", "rejected_again", "discarded", "unchanged")
# The status of a page with an edited payload that was not stored: it was rejected again, or the entry was changed before.
_NOT_TAKEN: Final = {"rejected_again": 422, "unchanged": 409}
# The most bytes of a character in a form: three bytes of UTF-8, each as %XX. And those of the other fields, mostly the note.
_FORM_BYTES_OF_CHARACTER: Final = 9
_OTHER_FIELDS_BYTES: Final = 16 * 1024


def id_in(path: str) -> UUID | None:
    """Return the id of the entry in the path of its page; None if the path is another."""
    text = path.removeprefix(_TREE)
    if text == path or len(text) != _UUID_CHARACTERS:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


async def listed(request: PageRequest, reports: DeadLetterReports) -> View:
    """Return the page with the list of entries, the newest first. Raises ValueError, StoreError."""
    given = {name: request.query.get(name) or None for name in letter_actions.FILTERS}
    found = await reports.page(
        Filter.of(given, request.tenant), letter_actions.LISTED_MAX, request.query.get("cursor") or None, 0
    )
    kept = {name: value for name, value in request.query.items() if name not in ("cursor", "chosen", "more", *_OUTCOMES)}
    here = {name: value for name, value in request.query.items() if name in (*kept, "cursor")}
    following = None if found.cursor is None else urlencode({**kept, "cursor": found.cursor})
    return View(
        "dead_letters.html",
        {
            "entries": [entry.row for entry in found.entries],
            "next_query": following,
            "behind": found.messages_behind,
            "given": {**dict.fromkeys((*letter_actions.FILTERS, "tenant"), ""), **kept},
            "reasons": ITEM_REASONS,
            "states": STATES,
            "done": _done(request.query),
            "has_more": request.query.get("more") == "1",
            "back": urlencode(kept),
            "is_chosen": request.query.get("chosen") == "all",
            "here_query": urlencode(here),
        },
    )


async def shown_entry(request: PageRequest, reports: DeadLetterReports, form_bytes_max: int, problem: str = "") -> View:
    """Return the page of one entry. `problem` is why an edited payload was not stored, which is shown instead of the kept
    payload. Raises RequestRefused, StoreError."""
    entry = await _entry(request, reports)
    row = entry.row
    document = entry.document()
    payload = document["decoded"] if document["decoded"] is not None else document["payload"]
    text = payload if isinstance(payload, str) else "" if payload is None else as_json(payload)
    is_whole = len(text) <= _SHOWN_BYTES_MAX and (entry.payload is None or len(entry.payload) >= int(row["payload_size_bytes"]))
    is_text = document["decoded"] is not None or document["payload_encoding"] in ("json", "text")
    characters_max = _characters_max(form_bytes_max)
    return View(
        "dead_letter.html",
        {
            "row": row,
            "entry": document,
            "text": text[:_SHOWN_BYTES_MAX] if request.edited is None else request.edited,
            "is_whole": is_whole,
            "is_editable": is_whole and is_text and row["payload_form"] != REQUEST and _characters(text) <= characters_max,
            "characters_max": characters_max,
            "is_replayable": row["payload_form"] != REQUEST,
            "is_open": entry.is_open,
            "remedy": _REMEDIES.get(row["reason"], ""),
            "done": _done(request.query),
            "problem": problem,
            "note": request.field("note"),
            "as_of": request.field("as_of"),
        },
    )


async def change_entry(
    request: PageRequest, reports: DeadLetterReports, replayer: DeadLetterReplayer, form_bytes_max: int
) -> View:
    """Replay, edit and replay, or discard one entry, and return the next page. An edit that was not stored is shown with the
    reason, and can be edited further.

    Raises RequestRefused, ValueError, StoreError, BrokerError."""
    entry = await _entry(request, reports)
    if request.field("do") == "discard" and not letter_actions.is_confirmed(request):
        return letter_actions.confirmation(request, {entry.row["reason"]: 1} if entry.is_open else {}, back=request.path)
    outcomes = await letter_actions.change(request, replayer, [entry])
    outcome = outcomes[0]
    if request.field("do") == "edit" and outcome.outcome in _NOT_TAKEN:
        why = f"{outcome.reason}: {outcome.message}" if outcome.reason else outcome.message
        shown = await shown_entry(request, reports, form_bytes_max, f"What you edited was not stored: {why}")
        return shown._replace(status=_NOT_TAKEN[outcome.outcome])
    return View.redirect(f"{request.base}{_TREE}{entry.id}?{letter_actions.summary(outcomes)}")


def given_back(request: PageRequest, *, may_retry: bool) -> Mapping[str, Any]:
    """Return the text that was typed into an entry's form, for the page with the error. With `may_retry`, that page has the
    form."""
    return {"edited": request.edited, "may_retry": may_retry, "note": request.field("note"), "as_of": request.field("as_of")}


NOTHING_EDITED: Final[Mapping[str, Any]] = {"edited": None, "may_retry": False, "note": "", "as_of": ""}


def _characters_max(form_bytes_max: int) -> int:
    """Return how many characters an edited payload may have, so that no form with it is too large."""
    return max(0, form_bytes_max - _OTHER_FIELDS_BYTES) // _FORM_BYTES_OF_CHARACTER


def _characters(text: str) -> int:
    """Return the number of characters as a browser counts them: in units of UTF-16."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


async def _entry(request: PageRequest, reports: DeadLetterReports) -> Entry:
    """Return the entry that a page is about. Raises RequestRefused if the key may see no such entry, and StoreError."""
    requested_id = id_in(request.path)
    assert requested_id is not None
    found = await reports.entries([requested_id], request.tenant_allowed)
    if not found:
        raise RequestRefused(NOT_FOUND, f"there is no dead letter {requested_id}")
    return found[0]


def _done(query: Mapping[str, str]) -> dict[str, int]:
    """Return the numbers of entries by outcome that the last form put into the address."""
    return {name: int(query[name]) for name in _OUTCOMES if query.get(name, "").isdecimal() and len(query[name]) < 6}
