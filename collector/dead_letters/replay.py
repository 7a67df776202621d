"""Replay or discard dead letters. The writer stores the result (collector/writer/replay_range.py).

Invariants:
1. A replay is read by the adapter that rejected the item, under the current rules
   (test_every_input_is_replayed_where_the_settings_are_wider).
2. Its record has the same batch id each time, so it is stored once however often it is replayed
   (test_a_dead_letter_is_replayed_once).
3. An entry is marked only by an event that is durable.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from google.protobuf.message import DecodeError
from infrasage.v1.dead_letter_pb2 import (
    DEAD_LETTER_ACTION_DISCARDED,
    DEAD_LETTER_ACTION_REJECTED_AGAIN,
    DEAD_LETTER_ACTION_REPLAYED,
    DeadLetterEvent,
    PayloadForm,
)
from infrasage.v1.telemetry_pb2 import Source, TelemetryBatch
from uuid_utils import uuid7

from adapters.codec.wire import NonCanonical
from adapters.errors import REASON, RECORD_TOO_LARGE, TIMESTAMP_TOO_OLD, UNREADABLE_MESSAGE, RequestRefused
from adapters.record import LOGS, TRACES, Adapted, Header, Part
from adapters.record_headers import header_first
from adapters.record_tags import RECORD_VERSION
from adapters.record_upgrade import current
from adapters.rows import row_bytes
from collector.broker.contract import Message
from collector.dead_letters.payloads import edited_payload
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.ingest.produce import SIGNALS, TOPICS
from collector.ingest.reading import Adapt
from collector.ingest.receipts import unnumbered_record
from collector.ingest.validate import LimitRules, Limits, days_text, oldest_kept_s
from collector.records.dead_letter import ENTRY_BYTES_MAX, event_messages, replay_batch_id, text
from collector.records.items import ITEM_MESSAGES

REPLAY_ROUTE: Final = b"replay"


AsOf = Literal["now", "received"]


class ReplayOutcome(NamedTuple):
    """The outcome of an entry: replayed, rejected_again, discarded; or, if nothing was done, `unchanged`, and why."""

    id: str
    outcome: str
    reason: str = ""
    message: str = ""


class _Rejected(Exception):
    """An item was rejected again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason
        self.message: Final = message


class DeadLetterReplayer:
    """Replays and discards entries."""

    def __init__(
        self,
        reports: DeadLetterReports,
        append: Callable[[Sequence[Message]], Awaitable[None]],
        adapters: Mapping[PayloadForm, Adapt],
        limits: Limits,
        *,
        message_bytes_max: int,
        now_unix_nano: Callable[[], int],
    ) -> None:
        self._reports: Final = reports
        self._append: Final = append
        self._adapters: Final = {PayloadForm.Name(form): adapt for form, adapt in adapters.items()}
        self._limits: Final = limits
        self._message_bytes_max: Final = message_bytes_max
        self._now_unix_nano: Final = now_unix_nano

    async def replay(
        self, entries: Sequence[Entry], *, as_of: AsOf, actor: str, note: str = "", payload: bytes | None = None
    ) -> list[ReplayOutcome]:
        """Replay entries. Return when the outcomes are durable, and, if that is soon, stored. `as_of` is the moment by which
        the rules about time judge. `payload` replaces that of a single entry, in the form in which entries are shown.

        Raises BrokerError, StoreError.
        """
        outcomes: dict[str, ReplayOutcome] = {}
        events: list[DeadLetterEvent] = []
        for entry in entries:
            if entry.row["state"] == "replayed":
                outcomes[entry.row["id"]] = ReplayOutcome(entry.row["id"], "unchanged", message="it was replayed before")
                continue
            event = self._event(entry, actor, note)
            try:
                self._take(event, entry, as_of, payload)
            except _Rejected as rejected:
                event.action = DEAD_LETTER_ACTION_REJECTED_AGAIN
                event.reason, event.message = rejected.reason, text(rejected.message)
                outcomes[entry.row["id"]] = ReplayOutcome(entry.row["id"], "rejected_again", event.reason, event.message)
            else:
                outcomes[entry.row["id"]] = ReplayOutcome(entry.row["id"], "replayed")
            events.append(event)
        await self._append(event_messages(events, self._message_bytes_max))
        replayed = [UUID(outcome.id) for outcome in outcomes.values() if outcome.outcome == "replayed"]
        if replayed:
            # The store may refuse items that the rules allow.
            for entry in await self._reports.entries(replayed):
                if entry.row["state"] == "rejected_again":
                    row = entry.row
                    outcomes[row["id"]] = ReplayOutcome(row["id"], "rejected_again", row["last_reason"], row["last_message"])
        return [outcomes[entry.row["id"]] for entry in entries]

    async def discard(self, entries: Sequence[Entry], *, actor: str, note: str) -> list[ReplayOutcome]:
        """Discard entries. Return when that is durable. Raises BrokerError."""
        outcomes: list[ReplayOutcome] = []
        events: list[DeadLetterEvent] = []
        for entry in entries:
            if not entry.is_open:
                outcomes.append(ReplayOutcome(entry.row["id"], "unchanged", message=f"it was {entry.row['state']} before"))
                continue
            event = self._event(entry, actor, note)
            event.action = DEAD_LETTER_ACTION_DISCARDED
            events.append(event)
            outcomes.append(ReplayOutcome(entry.row["id"], "discarded"))
        await self._append(event_messages(events, self._message_bytes_max))
        return outcomes

    def _event(self, entry: Entry, actor: str, note: str) -> DeadLetterEvent:
        now = self._now_unix_nano()
        return DeadLetterEvent(
            id=uuid7().bytes,
            dead_letter_id=entry.id.bytes,
            tenant_id=entry.row["tenant"],
            time_unix_nano=now,
            actor=text(actor),
            note=text(note),
        )

    def _take(self, event: DeadLetterEvent, entry: Entry, as_of: AsOf, payload: bytes | None) -> None:
        """Make `event` the replay of the entry. Raises _Rejected."""
        row = entry.row
        received = int(row["received"]) if as_of == "received" and int(row["received"]) else event.time_unix_nano
        batch_id = replay_batch_id(entry.id.bytes)
        form = row["payload_form"]
        try:
            item = edited_payload(form, payload, row["topic"]) if payload is not None else entry.payload or b""
        except (ValueError, RequestRefused) as error:
            raise _Rejected(REASON[UNREADABLE_MESSAGE].name, str(error)) from error
        if payload is None and 0 < len(item) < int(row["payload_size_bytes"]):
            raise _Rejected(
                REASON[RECORD_TOO_LARGE].name,
                f"only the first {len(item)} of {row['payload_size_bytes']} bytes of its payload were kept;"
                " pass an edited payload",
            )
        if not item:
            raise _Rejected(REASON[RECORD_TOO_LARGE].name, "its payload was not kept; pass an edited payload")
        header = Header(row["tenant"], Source.Value(f"SOURCE_{row['source'].upper()}"), received, batch_id)
        adapted = self._adapted(row, item, header, received, batch_id)
        if adapted.rejections:
            rejection = adapted.rejections[0]
            raise _Rejected(REASON[rejection.reason].name, rejection.message)
        if adapted.accepted_count() != row["item_count"] or len(adapted.parts) != 1:
            raise _Rejected(
                REASON[UNREADABLE_MESSAGE].name,
                f"the payload has {adapted.accepted_count()} items; the entry is {row['item_count']}",
            )
        (part,) = adapted.parts
        self._check_kept(part, row["tenant"], event.time_unix_nano)
        event.action = DEAD_LETTER_ACTION_REPLAYED
        event.batch_id = batch_id
        event.topic = TOPICS[part.signal]
        event.payload = part.payload + unnumbered_record(header, REPLAY_ROUTE, adapted)

    def _adapted(self, row: Mapping[str, Any], item: bytes, header: Header, received: int, batch_id: bytes) -> Adapted:
        """Return the item as its adapter reads it. Raises _Rejected."""
        form = row["payload_form"]
        name = f"PAYLOAD_FORM_{form.upper()}"
        if name == "PAYLOAD_FORM_TELEMETRY_BATCH":
            return refused_record(item, row["topic"], batch_id, received)
        if name not in self._adapters:
            raise _Rejected(REASON[UNREADABLE_MESSAGE].name, f"nothing reads a payload of form {form}")
        window = self._limits.window_of(PayloadForm.Value(name), row["tenant"])
        rules = LimitRules(self._limits, received, window=window)
        rules.item_bytes_max = self._limits.item_bytes_max - 2 * ENTRY_BYTES_MAX
        try:
            # This leaves room for the event around the record, and for the receipt.
            return self._adapters[name](item, header, rules, self._message_bytes_max - 2 * ENTRY_BYTES_MAX)
        except RequestRefused as error:
            raise _Rejected(REASON[error.reason].name, error.message) from error

    def _check_kept(self, part: Part, tenant: str, now: int) -> None:
        """Raise _Rejected if the store would delete an item at once, since its time is past the retention."""
        days = self._limits.kept_days.of(tenant, part.signal)
        if days and _oldest(part) < now - oldest_kept_s(days) * 10**9:
            raise _Rejected(
                REASON[TIMESTAMP_TOO_OLD].name, f"Timestamp is too far in the past: rows are kept for {days_text(days)}"
            )


def _oldest(part: Part) -> int:
    """Return the oldest time of the items of one record: the time by which its row is deleted."""
    (record,) = TelemetryBatch.FromString(part.payload).records
    received = record.received_time_unix_nano
    kind = ITEM_MESSAGES[TOPICS[part.signal]]
    items: list[Any] = [kind.FromString(item) for group in record.groups for item in group.items]
    return min((time for item in items for time in _times(part.signal, item, received)), default=received)


def _times(signal: int, item: Any, received: int) -> list[int]:
    if signal == LOGS:
        return [item.time_unix_nano or item.observed_time_unix_nano or received]
    if signal == TRACES:
        return [item.start_time_unix_nano]
    data = item.WhichOneof("data")
    return [point.time_unix_nano for point in getattr(item, data).data_points] if data else []


def refused_record(item: bytes, topic: str, batch_id: bytes, received_unix_nano: int) -> Adapted:
    """Return a record of a topic that the store refused, as a request of its own, received at that time. So an audit of a
    window has the record and its receipt, or neither.

    It is encoded again, by protobuf's own encoder and without unknown fields: an earlier version may have accepted a form that
    ClickHouse does not read, such as an empty list. Raises _Rejected.
    """
    try:
        batch = TelemetryBatch.FromString(current(item))
        if len(batch.records) != 1 or not 0 < batch.records[0].type <= 6 or topic not in SIGNALS:  # the last Type
            raise _Rejected(REASON[UNREADABLE_MESSAGE].name, "the payload must be one record")
        (record,) = batch.records
        for group in record.groups:
            group.items[:] = [_reencoded(topic, content) for content in group.items]
        batch.DiscardUnknownFields()
        record.version = RECORD_VERSION
        record.batch_id = batch_id
        record.batch_part = 0
        record.received_time_unix_nano = received_unix_nano
        record.ClearField("receipt")
        payload = header_first(batch.SerializeToString())
    except (DecodeError, NonCanonical) as error:
        raise _Rejected(REASON[UNREADABLE_MESSAGE].name, str(error)) from error
    adapted = Adapted()
    adapted.accepted[record.type] = record.item_count
    adapted.row_bytes = row_bytes(payload)
    adapted.parts.append(Part(SIGNALS[topic], payload, record.item_count, adapted.row_bytes))
    return adapted


def _reencoded(topic: str, content: bytes) -> bytes:
    """Return an item encoded again, without unknown fields. Raises DecodeError."""
    item = ITEM_MESSAGES[topic].FromString(content)
    item.DiscardUnknownFields()
    return item.SerializeToString()


def documents(outcomes: Sequence[ReplayOutcome]) -> list[dict[str, Any]]:
    """Return the outcomes for JSON, without empty fields."""
    return [{name: value for name, value in outcome._asdict().items() if value} for outcome in outcomes]
