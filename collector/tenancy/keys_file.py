"""Read and write the contents of a keys file, by strict rules for entries, names of tenants and notes.

A document that contains anything unknown is refused as a whole, naming the entry and the reason: half of the keys would be
worse than the keys that were in force before. There is no I/O here.

    {"version": 1, "keys": [
    {"id": "7h3k9x2m", "tenant": "acme", "scope": "ingest", "plan": "Pro", "sha256": "…", "created": "2026-04-10T12:00:00Z",
     "ends": null, "note": "checkout service"}
    ]}

A key is in force until `ends`; null means for ever. With `"origins": ["https://app.example.com"]` only pages of these origins
may send with it. Only a key of scope ingest may have origins.

Invariants:
1. An entry that was read can be written and read again unchanged (test_what_is_written_is_read).
2. A document that is not understood is refused with its reason (test_what_is_wrong_is_named).
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from collector.tenancy import key_format
from collector.tenancy.origins import ORIGINS_MAX, origin_problem
from collector.tenancy.scopes import Scope

VERSION: Final = 1
TENANT_LENGTH_MAX: Final = 128
PLAN_LENGTH_MAX: Final = 128
NOTE_LENGTH_MAX: Final = 256

_ID: Final = re.compile(f"[{key_format.ID_ALPHABET}]{{{key_format.ID_LENGTH}}}")
_SHA256: Final = re.compile("[0-9a-f]{64}")


class EntriesWrong(ValueError):
    """The document can't be read. The message names the entry, its error, and a valid value."""


class Key(NamedTuple):
    """One key, without its secret."""

    id: str
    tenant: str
    scope: Scope
    plan: str
    sha256: str
    created: datetime
    ends: datetime | None
    note: str
    origins: tuple[str, ...] = ()

    def has_ended(self, now: datetime) -> bool:
        return self.ends is not None and self.ends <= now


def read_entries(data: bytes) -> list[Key]:
    """Return the keys in a document. Raises EntriesWrong."""
    document = _document(data)
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise EntriesWrong(f'it must be an object with "version": {VERSION}')
    if version > VERSION:
        raise EntriesWrong(f"it is of version {version}, and this collector reads {VERSION}: a newer one wrote it")
    entries = document.get("keys")
    if not isinstance(entries, list) or len(document) != 2:
        raise EntriesWrong('beside "version" it must have "keys", a list, and nothing else')
    keys: list[Key] = []
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        try:
            key = _key(entry)
            for name, value in (("id", key.id), ("sha256", key.sha256)):
                other = seen.setdefault(value, index)
                if other != index:
                    raise EntriesWrong(f"keys[{other}] has the same {name}")
        except EntriesWrong as wrong:
            named = f" (id {shown(entry['id'])})" if isinstance(entry, dict) and "id" in entry else ""
            raise EntriesWrong(f"keys[{index}]{named}: {wrong}") from None
        keys.append(key)
    return keys


def write_entries(keys: Sequence[Key]) -> bytes:
    """Return the document with these keys. Raises EntriesWrong if it could not be read again."""
    entries = [_entry(key) for key in keys]
    for entry in entries:
        _key(entry)
    # One key a line, so that the file can be read and compared.
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f'{{"version": {VERSION}, "keys": [\n{lines}\n]}}\n'.encode()


def tenant_problem(tenant: str) -> str | None:
    """Return why this can't be a tenant's name; None if it can. The name appears in rows, in metrics, and on the terminals
    of operators."""
    return _name_problem(tenant, TENANT_LENGTH_MAX)


def note_problem(note: str) -> str | None:
    """Return why this can't be a key's note; None if it can."""
    return _text_problem(note, NOTE_LENGTH_MAX)


def time_text(time: datetime) -> str:
    """Return a time as 2026-04-10T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(value: object) -> str:
    """Return a value for a message: shortened, and in ASCII, so that it can't control a terminal."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _document(data: bytes) -> Any:
    try:
        return json.loads(data.decode(), object_pairs_hook=_object)
    except EntriesWrong:
        raise
    except UnicodeDecodeError as error:
        raise EntriesWrong(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise EntriesWrong(f"it is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list
        raise EntriesWrong("it is JSON, but not of keys") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose members have different names. Otherwise the last would win: a revoked key might be in force."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise EntriesWrong(f"{shown(next(name for name in names if names.count(name) > 1))} appears twice in one object")
    return found


def origins_problem(origins: Sequence[str], scope: Scope) -> str | None:
    """Return why a key of this scope can't have these origins; None if it can."""
    if not origins:
        return None
    if scope is not Scope.INGEST:
        return f"are for keys of scope {Scope.INGEST}, which a page may hold; this one has scope {scope}"
    if len(origins) > ORIGINS_MAX:
        return f"are {len(origins)}; at most {ORIGINS_MAX} are allowed"
    for origin in origins:
        if (problem := origin_problem(origin)) is not None:
            return f"have {shown(origin)}, which {problem}"
    return None


def _entry(key: Key) -> dict[str, Any]:
    entry: dict[str, Any] = {
        **key._asdict(),
        "created": time_text(key.created),
        "ends": None if key.ends is None else time_text(key.ends),
        "origins": list(key.origins),
    }
    if not key.origins:
        del entry["origins"]  # older versions know of none
    return entry


def _key(entry: object) -> Key:
    if not isinstance(entry, dict):
        raise EntriesWrong("it must be an object")
    for name in Key._fields:
        if name not in entry and name != "origins":
            raise EntriesWrong(f"{name} is missing")
    for name, value in entry.items():
        if name not in Key._fields:
            raise EntriesWrong(f"a key has no {shown(name)}")
        if name == "origins":
            if not (isinstance(value, list) and value and all(isinstance(origin, str) for origin in value)):
                raise EntriesWrong(f"origins must be a list of texts, not {shown(value)}")
            continue
        if not isinstance(value, str) and not (name == "ends" and value is None):
            raise EntriesWrong(f"{name} must be text{' or null' if name == 'ends' else ''}, not {shown(value)}")
    if not _ID.fullmatch(entry["id"]):
        raise EntriesWrong(f"id must be {key_format.ID_LENGTH} small letters and digits")
    if not _SHA256.fullmatch(entry["sha256"]):
        raise EntriesWrong("sha256 must be 64 hexadecimal digits, in small letters")
    for name, problem in (
        ("tenant", tenant_problem(entry["tenant"])),
        ("plan", _name_problem(entry["plan"], PLAN_LENGTH_MAX)),
        ("note", note_problem(entry["note"])),
    ):
        if problem is not None:
            raise EntriesWrong(f"{name} {problem}")
    try:
        scope = Scope(entry["scope"])
    except ValueError:
        raise EntriesWrong(f"there is no scope {shown(entry['scope'])}; there are {', '.join(Scope)}") from None
    origins = tuple(entry.get("origins", ()))
    if (problem := origins_problem(origins, scope)) is not None:
        raise EntriesWrong(f"origins {problem}")
    return Key(
        entry["id"],
        entry["tenant"],
        scope,
        entry["plan"],
        entry["sha256"],
        _time("created", entry["created"]),
        None if entry["ends"] is None else _time("ends", entry["ends"]),
        entry["note"],
        origins,
    )


def _time(name: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        pass
    raise EntriesWrong(f"{name} must be a time as 2026-04-10T12:00:00Z, not {shown(text)}")


def _name_problem(name: str, length_max: int) -> str | None:
    if not name:
        return "is empty"
    if name != name.strip():
        return "begins or ends with a space"
    return _text_problem(name, length_max)


def _text_problem(text: str, length_max: int) -> str | None:
    if len(text) > length_max:
        return f"has {len(text)} characters; at most {length_max} are allowed"
    if not text.isprintable():
        character = next(character for character in text if not character.isprintable())
        return f"has a character that can't be printed: U+{ord(character):04X}"
    return None
