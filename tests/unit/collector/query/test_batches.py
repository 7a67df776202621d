"""What became of one request, as it is known to the store, or to the memory of this process."""

from typing import Any
from uuid import UUID

import pytest
from support.batches import NOW, batch_id

from adapters.errors import INVALID_VALUE
from adapters.record import SOURCE_OTLP, Adapted
from collector.query.batches import BatchReports, NotKnown
from collector.query.reader import Reader
from collector.query.recent_batches import RecentBatches

BATCH = UUID(bytes=batch_id(1))


def recent(batches_max: int = 10) -> RecentBatches:
    made = RecentBatches(batches_max)
    adapted = Adapted()
    adapted.accepted[1] = 3
    adapted.rejected = {(1, INVALID_VALUE): 2, (3, INVALID_VALUE): 1}
    made.note(BATCH.bytes, "acme", SOURCE_OTLP, "/v1/metrics", NOW, adapted, 2)
    return made


def reader(behind: int) -> Reader:
    """Of an empty store."""

    async def caught_up(_: float) -> int:
        return behind

    return Reader(lambda _sql, _format: b"", caught_up, 1.0)


@pytest.mark.parametrize("asked", [None, reader(5), reader(0)])
async def test_what_this_process_has_answered_is_in_the_log(asked: Reader | None) -> None:
    """It is, until the store has it, for its tenant and for an admin."""
    reports = BatchReports(asked, recent())
    found: dict[str, Any] | None = await reports.find(BATCH, "acme")
    assert found == await reports.find(BATCH, None)
    assert found is not None
    assert (found["state"], found["received"], found["accepted"], found["rejected"]) == ("in_log", 6, 3, {"invalid_value": 3})
    assert found["dead_letters"] == {"kept": 2, "not_kept": 1, "open": 2, "replayed": 0, "discarded": 0}
    assert found["received_at"] == "2026-04-10T12:00:00.123456789Z"
    assert await reports.find(BATCH, "other") is None


async def test_not_found_is_said_only_of_a_store_that_has_caught_up() -> None:
    """Otherwise the batch may be on its way."""
    assert await BatchReports(reader(0), RecentBatches(0)).find(BATCH, None) is None
    with pytest.raises(NotKnown, match="5 messages are not stored yet"):
        await BatchReports(reader(5), recent(0)).find(BATCH, None)
    with pytest.raises(NotKnown, match=r"clickhouse\.url"):
        await BatchReports(None, RecentBatches(10)).find(BATCH, None)
