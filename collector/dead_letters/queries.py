"""Count and list the dead letters in the store.

Every item that was rejected or refused is counted, kept or not, and the counts add up by reason. Entries are listed newest
first, each once, even if others are added meanwhile.
"""

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from collector.dead_letters.filters import OPEN_STATES, Filter
from collector.dead_letters.payloads import shown
from collector.query.reader import Reader, Value
from collector.query.times import rfc3339

# In a list, a longer payload is left out: `show` has it.
LISTED_PAYLOAD_BYTES_MAX: Final = 64 * 1024

_CURSOR: Final = re.compile(r"(\d{1,19})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

_COLUMNS: Final = """
    toString(Id) AS id, TenantId AS tenant, toUnixTimestamp64Nano(ReceivedAt) AS received,
    toUnixTimestamp64Nano(KeptAt) AS kept,
    Source AS source, Type AS type, Route AS route, Reason AS reason, Message AS message, ServiceName AS service_id,
    toString(BatchId) AS batch_id, ItemIndex AS item_index, RecordIndex AS record_index, ItemCount AS item_count,
    length(Payload) <= {payload_max} AS has_payload, if(has_payload, base64Encode(Payload), '') AS payload,
    PayloadForm AS payload_form, PayloadSizeBytes AS payload_size_bytes, Topic AS topic, Partition AS partition,
    Offset AS offset, Error AS error, State AS state, Attempts AS attempts, toUnixTimestamp64Nano(LastAt) AS last,
    LastActor AS last_actor, LastNote AS last_note, LastReason AS last_reason, LastMessage AS last_message
"""


class Stats(NamedTuple):
    """Counts of all dead letters within retention. Times are in nanoseconds since the Unix epoch; None if there are none."""

    by_reason: Mapping[str, int]
    oldest_unix_nano: int | None
    newest_unix_nano: int | None
    not_kept: int  # rejected items that were not kept, because of the caps
    open: int  # open entries

    @property
    def total_failed(self) -> int:
        return sum(self.by_reason.values())


class Entry(NamedTuple):
    """One row of the view dead_letters. `payload` is None if it was longer than the query's limit."""

    row: Mapping[str, Any]
    payload: bytes | None

    @property
    def id(self) -> UUID:
        return UUID(self.row["id"])

    @property
    def is_open(self) -> bool:
        return self.row["state"] in OPEN_STATES

    def document(self) -> dict[str, Any]:
        """Return the entry as a document for pages and commands."""
        row = self.row
        form = row["payload_form"]
        view = shown(form, self.payload, row["topic"]) if self.payload is not None and form != "none" else None
        document: dict[str, Any] = {
            "id": row["id"],
            "tenant": row["tenant"],
            "received": rfc3339(row["received"]) if row["received"] else None,
            "kept": rfc3339(row["kept"]),
            **{name: row[name] for name in ("source", "type", "route", "reason", "message", "service_id", "batch_id")},
            "item_index": row["item_index"],
            "item_count": row["item_count"],
            "state": row["state"],
            "payload_form": form,
            "payload_size_bytes": row["payload_size_bytes"],
            "payload_encoding": None if view is None else view.encoding,
            "payload": None if view is None else view.payload,
            "decoded": None if view is None else view.decoded,
        }
        if row["topic"]:  # the entry is from the writer
            place = ("topic", "partition", "offset", "record_index")
            document["position"] = {name: row[name] for name in place}
            document["error"] = row["error"]
        if row["attempts"]:
            document["attempts"] = row["attempts"]
            document["last"] = {
                "at": rfc3339(row["last"]),
                **{name: row[f"last_{name}"] for name in ("actor", "note", "reason", "message")},
            }
        return document


class Page(NamedTuple):
    """A page of entries. `cursor` is where the next page begins; None if this is the last."""

    entries: Sequence[Entry]
    cursor: str | None
    messages_behind: int


class DeadLetterReports:
    """Reads dead letters from the store. Every method raises StoreError."""

    def __init__(self, reader: Reader, retention_days: int | None) -> None:
        """`retention_days` is that of dead letters. Items rejected before are no longer counted."""
        self.reader: Final = reader
        self._retention_days: Final = retention_days

    async def stats(self, tenant: str | None) -> tuple[Stats, int]:
        """Return the counts of a tenant, or of all, and by how many messages they lag."""
        behind = await self.reader.messages_behind()
        return await self.stats_now(tenant), behind

    async def stats_now(self, tenant: str | None) -> Stats:
        """Return the counts of a tenant, or of all, as stored at this moment."""
        of_tenant = "TRUE" if tenant is None else "TenantId = {tenant}"
        recent = "TRUE" if self._retention_days is None else "ReceivedAt >= now64(9) - toIntervalDay({days})"
        values: dict[str, Value] = {"tenant": tenant or "", "days": self._retention_days or 0}
        (receipts,) = await self.reader.rows_now(
            f"""SELECT sumMap(Rejected) AS by_reason, sum(DeadLetters) AS kept,
                minOrNull(toUnixTimestamp64Nano(ReceivedAt)) AS oldest, maxOrNull(toUnixTimestamp64Nano(ReceivedAt)) AS newest
            FROM telemetry_batches WHERE notEmpty(Rejected) AND {of_tenant} AND {recent}""",  # noqa: S608  # our own words
            values,
        )
        entries = await self.reader.rows_now(
            f"""SELECT Reason AS reason, countIf(IsOpen) AS open,
                -- the writer's are in no receipt's rejected; a message that can't be read has no items, and is one
                sumIf(greatest(ItemCount, 1), Topic != '') AS items,
                minOrNullIf(toUnixTimestamp64Nano(KeptAt), Topic != '') AS oldest,
                maxOrNullIf(toUnixTimestamp64Nano(KeptAt), Topic != '') AS newest
            FROM dead_letters WHERE {of_tenant} GROUP BY Reason""",  # noqa: S608  # our own words
            values,
        )
        by_reason = Counter({reason: int(items) for reason, items in receipts["by_reason"].items()})
        rejected = by_reason.total()
        by_reason.update({row["reason"]: int(row["items"]) for row in entries if int(row["items"])})
        rows = [receipts, *entries]
        oldest = [int(row["oldest"]) for row in rows if row["oldest"] is not None]
        newest = [int(row["newest"]) for row in rows if row["newest"] is not None]
        return Stats(
            dict(sorted(by_reason.items(), key=lambda item: (-item[1], item[0]))),
            min(oldest, default=None),
            max(newest, default=None),
            rejected - int(receipts["kept"]),
            sum(int(row["open"]) for row in entries),
        )

    async def page(
        self, which: Filter, limit: int, cursor: str | None, payload_bytes_max: int = LISTED_PAYLOAD_BYTES_MAX
    ) -> Page:
        """Return a page of entries, the newest first. Raises ValueError if `cursor` is not from a former page."""
        conditions, values = which.conditions()
        if cursor is not None:
            found = _CURSOR.fullmatch(cursor)
            if found is None or int(found[1]) >= 2**63:
                raise ValueError("cursor must be next_cursor of the page before")
            conditions.append("(toUnixTimestamp64Nano(KeptAt), toString(Id)) < (toInt64({kept}), {id})")
            values |= {"kept": int(found[1]), "id": found[2]}
        rows, behind = await self.reader.read(
            f"SELECT {_COLUMNS} FROM dead_letters WHERE {' AND '.join(conditions) or 'TRUE'} "  # noqa: S608  # our own words
            "ORDER BY KeptAt DESC, id DESC LIMIT {limit}",
            {**values, "limit": limit + 1, "payload_max": payload_bytes_max},
        )
        entries = [_entry(row) for row in rows[:limit]]
        last = entries[-1].row if len(rows) > limit else None
        return Page(entries, None if last is None else f"{last['kept']}.{last['id']}", behind)

    async def counts(self, which: Filter) -> dict[str, int]:
        """Return the number of entries by reason."""
        conditions, values = which.conditions()
        rows = await self.reader.rows(
            f"SELECT Reason AS reason, count() AS entries FROM dead_letters WHERE {' AND '.join(conditions) or 'TRUE'} "  # noqa: S608  # our own words
            "GROUP BY Reason",
            values,
        )
        return {row["reason"]: int(row["entries"]) for row in rows}

    async def entries(self, ids: Sequence[UUID], tenant: str | None = None) -> list[Entry]:
        """Return the existing entries among `ids`, with their payloads, in that order: those of `tenant`, or, if None, all."""
        of_tenant = "TRUE" if tenant is None else "TenantId = {tenant}"
        rows = await self.reader.rows(
            f"SELECT {_COLUMNS} FROM dead_letters WHERE Id IN {{ids}} AND {of_tenant}",  # noqa: S608  # our own words
            {"ids": ids, "payload_max": 2**62, "tenant": tenant or ""},
        )
        by_id = {row["id"]: row for row in rows}
        return [_entry(by_id[str(id_)]) for id_ in ids if str(id_) in by_id]


def _entry(row: dict[str, Any]) -> Entry:
    payload = base64.b64decode(row.pop("payload"))
    return Entry(row, payload if int(row.pop("has_payload")) else None)
