"""Dead letters that are sent again: what the store refused, and what it would delete at once."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from uuid import UUID

import pytest
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch
from infrasage.v1.telemetry_pb2 import TYPE_METRIC, Group, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from support import batches
from support.fakes.receiving import otlp_logs, otlp_metrics, otlp_traces
from support.records import encoded, flat, unpadded
from support.references.readable import refused_form
from support.strategies.wire_forms import Forms

from adapters.codec.wire import length_of
from adapters.record import LOGS, METRICS, TRACES
from adapters.record_headers import header_first
from adapters.record_upgrade import current
from adapters.rows import row_bytes
from collector.broker.contract import METRICS_TOPIC, Message
from collector.config.receivers import Validation
from collector.dead_letters.payloads import shown
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.dead_letters.replay import AsOf, DeadLetterReplayer, ReplayOutcome, refused_record
from collector.ingest.produce import TOPICS
from collector.ingest.validate import KeptDays, Limits
from collector.receivers.routes import PAYLOAD_ADAPTERS


@pytest.mark.parametrize("oddity", ["list_empty", "padded_varint", "unknown_field", "unknown_group", "list_unpacked"])
def test_a_refused_record_is_written_anew(oddity: str) -> None:
    """A form that an earlier version let through becomes the same record in a form that ClickHouse reads."""
    lot = random.Random(1)
    for record in batches.metrics(1, "tenant-a").records:
        if not record.metrics:
            continue
        usual = batches.metrics(1, "tenant-a")
        del usual.records[:]
        usual.records.append(record)
        usual.records[0].received_time_unix_nano = ITEM_NS
        forms = Forms(lot, [oddity], 0.7)
        today = TelemetryBatch.FromString(encoded(usual))
        for group in today.records[0].groups:
            group.items[:] = [forms.form(metric) for metric in usual.records[0].metrics]
        usual.records[0].batch_id = b"x" * 16
        usual.records[0].batch_part = 0
        usual.records[0].received_time_unix_nano = ITEM_NS
        for kept in (_version_1(forms, usual), forms.form(today), header_first(today.SerializeToString())):
            (part,) = refused_record(kept, METRICS_TOPIC, b"x" * 16, ITEM_NS).parts
            assert str(usual) == str(flat(part.payload)), "NaN is not equal to itself"
            assert part.payload == header_first(part.payload)
            assert refused_form(part.payload) == ""
            assert part.row_bytes == row_bytes(part.payload)


def _version_1(forms: Forms, batch: TelemetryBatchV1) -> bytes:
    """Its record, whose header is as it was always written."""
    record = TelemetryRecordV1()
    record.CopyFrom(batch.records[0])
    fields = [(7, forms.form(record.resource))] if record.HasField("resource") else []
    fields += [(9, forms.form(record.scope))] if record.HasField("scope") else []
    fields += [(11, forms.form(metric)) for metric in record.metrics]
    for name in ("resource", "scope", "metrics"):
        record.ClearField(name)
    content = record.SerializeToString()
    for number, field in fields:
        content += bytes([number << 3 | 2]) + length_of(len(field)) + field
    return b"\x0a" + length_of(len(content)) + content


class NoReports:
    """The store knows nothing of a replay yet."""

    async def entries(self, _ids: Sequence[UUID]) -> list[Entry]:
        return []


DAY_NS = 86_400 * 10**9
# The time of the items below: 2026-04-10T12:00:00Z.
ITEM_NS = 1_775_822_400_000_000_000


def refused_batch(batch: TelemetryBatchV1) -> TelemetryBatchV1:
    """Its first record with items, as the store refused it."""
    return TelemetryBatchV1(records=[next(record for record in batch.records if record.item_count)])


class Replays:
    """Of one entry, which was received at ITEM_NS."""

    def __init__(
        self, form: str, payload: bytes, kept: dict[int, int | None], days_later: int, topic: str | None = None
    ) -> None:
        batch = TelemetryBatch.FromString(current(payload)) if form == "telemetry_batch" else None
        (signal,) = kept
        self._row: dict[str, Any] = {
            "id": str(UUID(int=7)),
            "tenant": "tenant-a",
            "state": "open",
            "received": ITEM_NS,
            "source": "otlp",
            "payload_form": form,
            "topic": topic if topic is not None else TOPICS[signal] if batch is not None else "",
            "payload_size_bytes": len(payload),
            "item_count": sum(record.item_count for record in batch.records) if batch is not None else 1,
        }
        self._payload: Final = payload
        self._limits: Final = Limits(**Validation().model_dump(), kept_days=KeptDays(kept, {}))
        self.now: Final = ITEM_NS + days_later * DAY_NS
        self.appended: Final[list[Message]] = []

    async def replay(self, as_of: AsOf, payload: bytes | None = None) -> ReplayOutcome:
        async def append(messages: Sequence[Message]) -> None:
            self.appended.extend(messages)

        reports = cast("DeadLetterReports", NoReports())
        replayer = DeadLetterReplayer(
            reports, append, PAYLOAD_ADAPTERS, self._limits, message_bytes_max=1 << 20, now_unix_nano=lambda: self.now
        )
        (found,) = await replayer.replay([Entry(self._row, self._payload)], as_of=as_of, actor="a", payload=payload)
        return found


REFUSED = [
    (METRICS, batches.metrics(1, "tenant-a")),
    (LOGS, batches.logs(1, "tenant-a")),
    (TRACES, batches.traces(1, "tenant-a")),
]
FORMS = [
    ("otlp_metrics", otlp_metrics(), {METRICS: 3}),
    ("otlp_logs", otlp_logs(), {LOGS: 3}),
    ("otlp_traces", otlp_traces(), {TRACES: 3}),
    *(
        ("telemetry_batch", form(refused_batch(batch)), {signal: 3})
        for signal, batch in REFUSED
        for form in (encoded, TelemetryBatchV1.SerializeToString)
    ),
]


@pytest.mark.parametrize(("form", "payload", "kept"), FORMS)
@pytest.mark.parametrize("as_of", ["now", "received"])
async def test_a_replay_and_its_receipt_have_one_time(
    form: str, payload: bytes, kept: dict[int, int | None], as_of: AsOf
) -> None:
    """Audits find both by it, or neither."""
    replays = Replays(form, payload, kept, days_later=2)
    assert "replayed" == (await replays.replay(as_of)).outcome
    (message,) = replays.appended
    (letter,) = DeadLetterBatch.FromString(message.payload).records
    records = TelemetryBatch.FromString(letter.event.payload).records
    assert len(records) > 1
    assert {replays.now if as_of == "now" else ITEM_NS} == {record.received_time_unix_nano for record in records}
    assert unpadded(letter.event.payload) == unpadded(header_first(letter.event.payload))


@pytest.mark.parametrize("form", [encoded, TelemetryBatchV1.SerializeToString], ids=["today", "version 1"])
@pytest.mark.parametrize(("signal", "batch"), REFUSED)
async def test_a_refused_record_is_edited_and_replayed(
    signal: int, batch: TelemetryBatchV1, form: Callable[[TelemetryBatchV1], bytes]
) -> None:
    """It is edited as it is shown, with its items, whatever version kept it."""
    refused = refused_batch(batch)
    replays = Replays("telemetry_batch", form(refused), {signal: None}, days_later=0)
    document = shown("telemetry_batch", form(refused), TOPICS[signal]).decoded
    item = document["records"][0]["groups"][0]["items"][0]
    name = {METRICS: "description", LOGS: "severityText", TRACES: "name"}[signal]
    item[name] = "mended"
    assert "replayed" == (await replays.replay("received", json.dumps(document).encode())).outcome
    (message,) = replays.appended
    (letter,) = DeadLetterBatch.FromString(message.payload).records
    found = flat(letter.event.payload).records[0]
    items: Any = {METRICS: refused.records[0].metrics, LOGS: refused.records[0].log_records, TRACES: refused.records[0].spans}
    setattr(items[signal][0], {METRICS: "description", LOGS: "severity_text", TRACES: "name"}[signal], "mended")
    refused.records[0].batch_id = found.batch_id
    refused.records[0].received_time_unix_nano = ITEM_NS
    assert str(refused.records[0]) == str(found), "NaN is not equal to itself"


@pytest.mark.parametrize("topic", [METRICS_TOPIC, "", "infrasage.dead_letters"])
async def test_what_holds_no_items_of_its_topic_is_rejected_again(topic: str) -> None:
    """Nobody knows how to read it, or it is malformed."""
    group = Group(items=[b"\xff"])
    payload = TelemetryBatch(
        records=[TelemetryRecord(type=TYPE_METRIC, item_count=1, version=2, groups=[group])]
    ).SerializeToString()
    replays = Replays("telemetry_batch", payload, {METRICS: None}, days_later=0, topic=topic)
    found = await replays.replay("received")
    assert ("rejected_again", "unreadable_message") == (found.outcome, found.reason)


@pytest.mark.parametrize(("form", "payload", "kept"), FORMS)
@pytest.mark.parametrize(("days_later", "outcome"), [(2, "replayed"), (4, "rejected_again")])
async def test_what_the_store_would_delete_is_not_replayed(
    form: str, payload: bytes, kept: dict[int, int | None], days_later: int, outcome: str
) -> None:
    """Although the rules about time are asked for when it arrived: it would be marked as replayed, and be gone."""
    replays = Replays(form, payload, kept, days_later)
    found = await replays.replay("received")
    assert (outcome, 1) == (found.outcome, len(replays.appended))
    if outcome == "rejected_again":
        assert ("timestamp_too_old", "Timestamp is too far in the past: rows are kept for 3 days") == (
            found.reason,
            found.message,
        )
