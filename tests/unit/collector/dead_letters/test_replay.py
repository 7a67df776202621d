"""Dead letters that are sent again: what the store refused, and what it would delete at once."""

import random
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support import batches
from support.fakes.receiving import otlp_logs, otlp_metrics, otlp_traces
from support.references.readable import refused_form
from support.strategies.wire_forms import Forms

from adapters.rows import row_bytes
from collector.broker.contract import Message
from collector.config.receivers import Validation
from collector.dead_letters.queries import DeadLetterReports, Entry
from collector.dead_letters.replay import DeadLetterReplayer, refused_record
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
        adapted = refused_record(Forms(lot, [oddity], 0.7).form(usual), b"x" * 16)
        usual.records[0].batch_id = b"x" * 16
        usual.records[0].batch_part = 0
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


@pytest.mark.parametrize(
    ("form", "payload", "kept"),
    [
        ("otlp_metrics", otlp_metrics(), {11: 3}),
        ("otlp_logs", otlp_logs(), {12: 3}),
        ("otlp_traces", otlp_traces(), {13: 3}),
        ("telemetry_batch", refused_batch(batches.metrics(1, "tenant-a")), {11: 3}),
        ("telemetry_batch", refused_batch(batches.logs(1, "tenant-a")), {12: 3}),
        ("telemetry_batch", refused_batch(batches.traces(1, "tenant-a")), {13: 3}),
    ],
)
@pytest.mark.parametrize(("days_later", "outcome"), [(2, "replayed"), (4, "rejected_again")])
async def test_what_the_store_would_delete_is_not_replayed(
    form: str, payload: bytes, kept: dict[int, int | None], days_later: int, outcome: str
) -> None:
    """Although the rules about time are asked for when it arrived: it would be marked as replayed, and be gone."""
    appended: list[Message] = []

    async def append(messages: Sequence[Message]) -> None:
        appended.extend(messages)

    replayer = DeadLetterReplayer(
        cast("DeadLetterReports", NoReports()),
        append,
        PAYLOAD_ADAPTERS,
        Limits(**Validation().model_dump(), kept_days=KeptDays(kept, {})),
        message_bytes_max=1 << 20,
        now_unix_nano=lambda: ITEM_NS + days_later * DAY_NS,
    )
    items = sum(record.item_count for record in TelemetryBatch.FromString(payload).records) if form == "telemetry_batch" else 1
    row: dict[str, Any] = {
        "id": str(UUID(int=7)),
        "tenant": "tenant-a",
        "state": "open",
        "received": ITEM_NS,
        "source": "otlp",
        "payload_form": form,
        "payload_size_bytes": len(payload),
        "item_count": items,
    }
    (found,) = await replayer.replay([Entry(row, payload)], as_of="received", actor="a")
    assert (outcome, 1) == (found.outcome, len(appended))
    if outcome == "rejected_again":
        assert ("timestamp_too_old", "Timestamp is too far in the past: rows are kept for 3 days") == (
            found.reason,
            found.message,
        )
