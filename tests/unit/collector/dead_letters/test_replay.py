"""Dead letters that are sent again: what the store refused, and what it would delete at once."""

import random
from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

import pytest
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support import batches
from support.fakes.receiving import otlp_logs, otlp_metrics, otlp_traces
from support.references.readable import refused_form
from support.strategies.wire_forms import Forms

from adapters.rows import row_bytes
from collector.broker.contract import Message
from collector.config.receivers import Validation
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.dead_letters.replay import AsOf, DeadLetterReplayer, ReplayOutcome, refused_record
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
        adapted = refused_record(Forms(lot, [oddity], 0.7).form(usual), b"x" * 16, ITEM_NS)
        usual.records[0].batch_id = b"x" * 16
        usual.records[0].batch_part = 0
        usual.records[0].received_time_unix_nano = ITEM_NS
        (part,) = adapted.parts
        assert part.payload == usual.SerializeToString()
        assert refused_form(part.payload) == ""
        assert part.row_bytes == adapted.row_bytes == row_bytes(part.payload)


class NoReports:
    """The store knows nothing of a replay yet."""

    async def entries(self, _ids: Sequence[UUID]) -> list[Entry]:
        return []


DAY_NS = 86_400 * 10**9
# The time of the items below: 2026-04-10T12:00:00Z.
ITEM_NS = 1_775_822_400_000_000_000


def refused_batch(batch: TelemetryBatch) -> bytes:
    """Its first record with items, as the store refused it."""
    found = next(record for record in batch.records if record.item_count)
    return TelemetryBatch(records=[found]).SerializeToString()


class Replays:
    """Of one entry, which was received at ITEM_NS."""

    def __init__(self, form: str, payload: bytes, kept: dict[int, int | None], days_later: int) -> None:
        batch = TelemetryBatch.FromString(payload) if form == "telemetry_batch" else None
        self._row: dict[str, Any] = {
            "id": str(UUID(int=7)),
            "tenant": "tenant-a",
            "state": "open",
            "received": ITEM_NS,
            "source": "otlp",
            "payload_form": form,
            "payload_size_bytes": len(payload),
            "item_count": sum(record.item_count for record in batch.records) if batch is not None else 1,
        }
        self._payload: Final = payload
        self._limits: Final = Limits(**Validation().model_dump(), kept_days=KeptDays(kept, {}))
        self.now: Final = ITEM_NS + days_later * DAY_NS
        self.appended: Final[list[Message]] = []

    async def replay(self, as_of: AsOf) -> ReplayOutcome:
        async def append(messages: Sequence[Message]) -> None:
            self.appended.extend(messages)

        reports = cast("DeadLetterReports", NoReports())
        replayer = DeadLetterReplayer(
            reports, append, PAYLOAD_ADAPTERS, self._limits, message_bytes_max=1 << 20, now_unix_nano=lambda: self.now
        )
        (found,) = await replayer.replay([Entry(self._row, self._payload)], as_of=as_of, actor="a")
        return found


FORMS = [
    ("otlp_metrics", otlp_metrics(), {11: 3}),
    ("otlp_logs", otlp_logs(), {12: 3}),
    ("otlp_traces", otlp_traces(), {13: 3}),
    ("telemetry_batch", refused_batch(batches.metrics(1, "tenant-a")), {11: 3}),
    ("telemetry_batch", refused_batch(batches.logs(1, "tenant-a")), {12: 3}),
    ("telemetry_batch", refused_batch(batches.traces(1, "tenant-a")), {13: 3}),
]


@pytest.mark.parametrize(("form", "payload", "kept"), FORMS)
@pytest.mark.parametrize("as_of", ["now", "received"])
async def test_a_replay_and_its_receipt_have_one_time(
    form: str, payload: bytes, kept: dict[int, int | None], as_of: AsOf
) -> None:
    """By which audits find both, or neither."""
    replays = Replays(form, payload, kept, days_later=2)
    assert "replayed" == (await replays.replay(as_of)).outcome
    (message,) = replays.appended
    (letter,) = DeadLetterBatch.FromString(message.payload).records
    records = TelemetryBatch.FromString(letter.event.payload).records
    assert len(records) > 1
    assert {replays.now if as_of == "now" else ITEM_NS} == {record.received_time_unix_nano for record in records}


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
