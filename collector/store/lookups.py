"""Look up stored items, receipts, dead letters and fingerprints by their identifiers."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final
from uuid import UUID

from collector.broker.contract import DEAD_LETTERS_TOPIC, TRACES_TOPIC
from collector.store.contract import TABLES, TRACE_TIMES
from collector.store.payload_index import CopyKey, MessageKey, contents, dead_letter_ids
from collector.store.retention import DEAD_LETTERS, EVENTS

# The most identifiers in one statement.
_IDS_MAX: Final = 1000


class Lookups:
    """Looks up rows of one store. Each method raises the errors of `text`."""

    def __init__(self, text: Callable[[str], str]) -> None:
        """`text` runs a query, and returns its answer, tab-separated."""
        self._text: Final = text

    def holds(self, topic: str, payload: bytes, besides: Mapping[MessageKey, int]) -> bool:
        """Return whether every item and receipt of these payloads and of `besides` is stored already; for dead letters, every
        entry and event."""
        try:
            if topic == DEAD_LETTERS_TOPIC:
                letters, events = dead_letter_ids(payload)
                return self._has(DEAD_LETTERS[0], letters) and self._has(EVENTS[0], events)
            expected, receipts = contents(payload)
        except ValueError:
            return False  # the payload cannot be inserted either, and `insert` reports the error
        messages = list(expected)
        for start in range(0, len(messages), _IDS_MAX):
            some = messages[start : start + _IDS_MAX]
            stored = self._stored(topic, {batch_id for batch_id, _ in some})
            if any(stored.get(message, 0) < expected[message] + besides.get(message, 0) for message in some):
                return False
        return not receipts or receipts <= self.receipts({batch_id for batch_id, _ in receipts})

    def untouched(self, topic: str, payload: bytes, besides: Mapping[MessageKey, int]) -> bool:
        """Return whether no item and no receipt of these payloads is stored: no more items of their messages than `besides`."""
        try:
            expected, receipts = contents(payload)
        except ValueError:
            return False
        for some in _in_parts({batch_id for batch_id, _ in expected}):
            for found in self._counts(topic, set(some)):
                if any(found.get(message, 0) > besides.get(message, 0) for message in expected):
                    return False
        return not receipts & self.receipts({batch_id for batch_id, _ in receipts})

    def receipts(self, batch_ids: Collection[UUID]) -> set[MessageKey]:
        """Return the receipts of these batches that are stored."""
        found: set[MessageKey] = set()
        for some in _in_parts(batch_ids):
            answer = self._text(
                f"SELECT BatchId, BatchPart FROM telemetry_batches WHERE BatchId IN ({_among(some)})"  # noqa: S608 - UUIDs
            )
            rows = (line.split("\t") for line in answer.splitlines())
            found.update((UUID(batch_id), int(part)) for batch_id, part in rows)
        return found

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        """Return the batches that have a receipt and an item stored under another batch part than `besides_part`."""
        messages = {message for message in self.receipts(batch_ids) if message[1] != besides_part}
        found: set[UUID] = set()
        for some in _in_parts({batch_id for batch_id, _ in messages}):
            for topic in TABLES:
                found.update(
                    message[0] for message, items in self._stored(topic, set(some)).items() if items and message in messages
                )
        return found

    def copies(
        self, topic: str, asked: Mapping[CopyKey, int], besides: Collection[MessageKey], since_ns: int, until_ns: int
    ) -> dict[CopyKey, list[int]]:
        """Return when messages of these tenants and fingerprints were received, if that was from `since_ns` to `until_ns`.

        A message counts if at least as many of its items are stored as `asked` has, or if it was left out. Messages in
        `besides` do not count."""
        found: dict[CopyKey, list[int]] = {}
        originals: list[tuple[CopyKey, MessageKey, int]] = []
        for some in _in_parts([UUID(bytes=value) for value in sorted({value for _, value in asked})]):
            answer = self._text(
                "SELECT hex(TenantId), Fingerprint, toUnixTimestamp64Nano(ReceivedAt), BatchId, BatchPart, RepeatedItems"  # noqa: S608 - numbers
                f" FROM telemetry_batches WHERE ReceivedAt >= fromUnixTimestamp64Nano(toInt64({since_ns}))"
                f" AND ReceivedAt <= fromUnixTimestamp64Nano(toInt64({until_ns})) AND Fingerprint IN ({_among(some)})"
            )
            for line in answer.splitlines():
                tenant, value, received, batch_id, part, repeated = line.split("\t")
                copy, message = (bytes.fromhex(tenant), UUID(value).bytes), (UUID(batch_id), int(part))
                if copy not in asked or message in besides:
                    continue
                if int(repeated):
                    found.setdefault(copy, []).append(int(received))
                else:
                    originals.append((copy, message, int(received)))
        for start in range(0, len(originals), _IDS_MAX):
            part_ = originals[start : start + _IDS_MAX]
            stored = self._stored(topic, {message[0] for _, message, _ in part_})
            for copy, message, at in part_:
                if stored.get(message, 0) >= asked[copy]:
                    found.setdefault(copy, []).append(at)
        return found

    def _has(self, table: str, ids: Collection[UUID]) -> bool:
        """Return whether a row of each id is stored."""
        return all(
            int(self._text(f"SELECT uniqExact(Id) FROM {table} WHERE Id IN ({_among(some)})")) == len(some)  # noqa: S608 - ours, and UUIDs
            for some in _in_parts(ids)
        )

    def _stored(self, topic: str, batch_ids: set[UUID]) -> dict[MessageKey, int]:
        """Return how many items of these batches are stored, by message."""
        counts = self._counts(topic, batch_ids)
        # A span counts only if the row of its trace is stored too, since the two are written one after the other.
        return {message: min(found.get(message, 0) for found in counts) for message in counts[0]}

    def _counts(self, topic: str, batch_ids: set[UUID]) -> list[dict[MessageKey, int]]:
        """Return how many items of these batches are in the tables, by message; for spans, also how many their traces' rows
        count."""
        among = _among(batch_ids)

        def count(table: str, what: str) -> dict[MessageKey, int]:
            answer = self._text(
                f"SELECT BatchId, BatchPart, {what} FROM {table} "  # noqa: S608 - our own names, and UUIDs
                f"WHERE BatchId IN ({among}) GROUP BY BatchId, BatchPart"
            )
            rows = (line.split("\t") for line in answer.splitlines())
            return {(UUID(batch_id), int(part)): int(number) for batch_id, part, number in rows}

        stored: Counter[MessageKey] = Counter()
        for table in TABLES[topic]:
            stored.update(count(table, "count()"))
        if topic == TRACES_TOPIC:
            return [stored, count(TRACE_TIMES, "sum(SpanCount)")]
        return [stored]


def _in_parts(ids: Collection[UUID]) -> Iterator[list[UUID]]:
    """Return parts of the ids, each small enough for one statement."""
    all_ = list(ids)
    return (all_[start : start + _IDS_MAX] for start in range(0, len(all_), _IDS_MAX))


def _among(ids: Collection[UUID]) -> str:
    return ", ".join(f"'{id_}'" for id_ in ids)
