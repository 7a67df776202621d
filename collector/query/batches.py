"""Report the outcome of one request: its receipt, and where its items are now.

Invariants:
1. Everything reported about the store was read from it. A request that is not stored yet is reported from memory only if this
   process answered it (test_what_this_process_has_answered_is_in_the_log).
2. Nothing is guessed: *not found* is reported only of a store that has caught up
   (test_not_found_is_said_only_of_a_store_that_has_caught_up).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from adapters.errors import REASON
from adapters.repairs import REPAIR
from collector.query.reader import Reader
from collector.query.recent_batches import Recent, RecentBatches
from collector.store.contract import TABLES

# The store's names, by the numbers in a header.
_SOURCES: Final = ("unspecified", "native", "otlp", "prometheus_write_v1", "prometheus_write_v2")
_OPEN: Final = frozenset({"open", "rejected_again"})


class NotKnown(Exception):
    """The batch may be on its way, or elsewhere: ask again."""


class BatchReports:
    """Reports batches of all processes. `reader` is None if there is no store to ask."""

    def __init__(self, reader: Reader | None, recent: RecentBatches) -> None:
        self._reader: Final = reader
        self._recent: Final = recent

    async def find(self, batch_id: UUID, tenant: str | None) -> dict[str, Any] | None:
        """Return the report of a batch, as docs/use/api.md describes it; None if there is no such batch, or it is not of
        `tenant` (None: any tenant). Raises NotKnown, and StoreError if the store can't be asked and nothing else is known."""
        recent = self._recent.find(batch_id.bytes)
        if recent is not None and tenant is not None and recent.tenant != tenant:
            return None
        if self._reader is None:
            if recent is None:
                raise NotKnown("this gateway has no store: set clickhouse.url (--clickhouse) to the store of its writers")
            return _from_memory(batch_id, recent)
        found, behind = await self._reader.read(_RECEIPT, {"batch": batch_id})
        if found and (tenant is None or found[0]["TenantId"] == tenant):
            return await self._from_store(batch_id, found[0])
        if found:
            return None
        if recent is not None:
            return _from_memory(batch_id, recent)
        if behind:
            raise NotKnown(f"{behind} messages are not stored yet, and it may be among them")
        return None

    async def _from_store(self, batch_id: UUID, receipt: Mapping[str, Any]) -> dict[str, Any]:
        assert self._reader is not None
        stored = {
            row["Name"]: int(row["Rows"])
            for row in await self._reader.rows_now(_STORED, {"batch": batch_id})
            if int(row["Rows"])
        }
        by_state = {row["State"]: row for row in await self._reader.rows_now(_LETTERS, {"batch": batch_id})}
        refused = sum(int(row["Refused"]) for row in by_state.values())
        letters = {state: int(row["Letters"]) for state, row in by_state.items()}
        duplicates, duplicate_of = await self._repeated(batch_id)
        accepted = sum(map(int, receipt["Accepted"].values()))
        rows = sum(stored.values())
        rejected = {reason: int(items) for reason, items in receipt["Rejected"].items()}
        kept = int(receipt["DeadLetters"])
        return {
            "batch_id": str(batch_id),
            "tenant": receipt["TenantId"],
            "received_at": _moment(int(receipt["At"])),
            "source": receipt["Source"],
            "route": receipt["Route"],
            "received": int(receipt["Received"]),
            "accepted": accepted,
            "rejected": rejected,
            "repaired": {reason: int(count) for reason, count in receipt["Repaired"].items()},
            "limited": 0,
            "parts": int(receipt["Parts"]),
            "state": "stored" if rows + duplicates >= accepted and not refused else "stored_in_part",
            "stored": stored,
            "duplicates": duplicates,
            "duplicate_of": duplicate_of,
            "refused_by_store": refused,
            "dead_letters": {
                "kept": kept,
                "not_kept": sum(rejected.values()) - kept,
                "open": sum(number for state, number in letters.items() if state in _OPEN),
                "replayed": letters.get("replayed", 0),
                "discarded": letters.get("discarded", 0),
            },
        }

    async def _repeated(self, batch_id: UUID) -> tuple[int, str | None]:
        """Return how many items were left out, since they were stored before, and the batch with which they were."""
        assert self._reader is not None
        repeated = await self._reader.rows_now(_REPEATED, {"batch": batch_id})
        if not repeated:
            return 0, None
        last = repeated[-1]
        about = {"tenant": last["TenantId"], "print": UUID(last["Print"]), "at": int(last["At"])}
        found = await self._reader.rows_now(_FIRST, about)
        return sum(int(row["RepeatedItems"]) for row in repeated), found[0]["Id"] if found else None


def _from_memory(batch_id: UUID, recent: Recent) -> dict[str, Any]:
    rejected: dict[str, int] = {}
    for (_, reason), items in recent.rejected.items():
        name = REASON[reason].name
        rejected[name] = rejected.get(name, 0) + items
    total = sum(rejected.values())
    return {
        "batch_id": str(batch_id),
        "tenant": recent.tenant,
        "received_at": _moment(recent.received_time_unix_nano),
        "source": _SOURCES[recent.source],
        "route": recent.route,
        "received": recent.accepted + total,
        "accepted": recent.accepted,
        "rejected": rejected,
        "repaired": {REPAIR[kind].name: count for kind, count in recent.repaired.items()},
        "limited": 0,
        "parts": recent.parts,
        "state": "in_log",
        "stored": {},
        "duplicates": 0,
        "duplicate_of": None,
        "refused_by_store": 0,
        "dead_letters": {
            "kept": recent.dead_letters,
            "not_kept": total - recent.dead_letters,
            "open": recent.dead_letters,
            "replayed": 0,
            "discarded": 0,
        },
    }


def _moment(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


_RECEIPT: Final = (
    "SELECT *, toUnixTimestamp64Nano(ReceivedAt) AS At FROM telemetry_batches"
    " WHERE BatchId = {batch} AND Received != 0 ORDER BY BatchPart LIMIT 1"
)
# Messages that were left out; and the stored message, which came at most the longest window before or after.
_REPEATED: Final = (
    "SELECT TenantId, Fingerprint AS Print, toUnixTimestamp64Nano(ReceivedAt) AS At, RepeatedItems FROM telemetry_batches"
    " WHERE BatchId = {batch} AND RepeatedItems != 0 ORDER BY BatchPart"
)
_FIRST: Final = (
    "SELECT toString(BatchId) AS Id FROM telemetry_batches WHERE TenantId = {tenant} AND Fingerprint = {print}"
    " AND RepeatedItems = 0 AND ReceivedAt >= fromUnixTimestamp64Nano(toInt64({at})) - INTERVAL 7 DAY"
    " AND ReceivedAt <= fromUnixTimestamp64Nano(toInt64({at})) + INTERVAL 7 DAY"
    " ORDER BY abs(toUnixTimestamp64Nano(ReceivedAt) - toInt64({at})) LIMIT 1"
)
_STORED: Final = " UNION ALL ".join(
    f"SELECT '{table}' AS Name, count() AS Rows FROM {table} WHERE BatchId = {{batch}}"  # noqa: S608 - our own names
    for tables in TABLES.values()
    for table in tables
)
# Entries of the gateway, and, counted separately, items that the store refused.
_LETTERS: Final = (
    "SELECT State, countIf(Topic = '') AS Letters, sumIf(ItemCount, Topic != '') AS Refused"
    " FROM dead_letters WHERE BatchId = {batch} GROUP BY State"
)
