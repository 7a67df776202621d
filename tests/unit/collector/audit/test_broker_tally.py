"""What an audit sums up of messages: of their headers alone, in today's form and in version 1."""

from collections.abc import Callable
from uuid import UUID

import pytest
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.batches import NOW, batch_id, gauge
from support.records import encoded

from collector.audit.broker_tally import BatchTally, Tally
from collector.audit.report import MINUTE_NS, Window
from collector.broker.contract import METRICS_TOPIC

WINDOW = Window(NOW - MINUTE_NS, NOW + MINUTE_NS)
MINUTE = NOW // MINUTE_NS
FORMS: list[Callable[[TelemetryBatchV1], bytes]] = [encoded, TelemetryBatchV1.SerializeToString]


def message(number: int, points: int, tenant: str = "acme", received: int = NOW) -> TelemetryBatchV1:
    """So many points, and the receipt."""
    batch = gauge(number, points)
    batch.records.add(source=batch.records[0].source, batch_id=batch_id(number)).receipt.received = points
    for record in batch.records:
        record.tenant_id, record.received_time_unix_nano = tenant, received
    return batch


@pytest.mark.parametrize("form", FORMS, ids=["today", "version 1"])
def test_messages_are_summed_up(form: Callable[[TelemetryBatchV1], bytes]) -> None:
    """Items and receipts by minute, and which batches have no receipt: of the window and its tenant only."""
    asked = {UUID(bytes=batch_id(number)) for number in (1, 9)}
    for window, items, receipts in ((WINDOW, 12, 2), (WINDOW._replace(tenant="acme"), 5, 1)):
        tally, batches = Tally(window, asked), BatchTally(window)
        for one in (message(1, 5), message(2, 7, "other"), message(3, 100, received=NOW + MINUTE_NS)):
            tally.add(METRICS_TOPIC, form(one))
            batches.add(METRICS_TOPIC, form(one))
        held = tally.sums(0, {})
        assert ({(MINUTE, METRICS_TOPIC): items}, {MINUTE: receipts}) == (held.items, held.receipts)
        assert {UUID(bytes=batch_id(9))} == held.without_receipt
        assert items == sum(counts[METRICS_TOPIC] for counts in batches.batches.values())


@pytest.mark.parametrize("form", FORMS, ids=["today", "version 1"])
def test_what_can_not_be_read_adds_nothing(form: Callable[[TelemetryBatchV1], bytes]) -> None:
    """It became a dead letter."""
    tally = Tally(WINDOW, ())
    for payload in (b"", b"\xff", form(message(1, 5))[:-1], form(message(1, 5)) + b"\x0a\x05"):
        tally.add(METRICS_TOPIC, payload)
    assert ({}, {}) == (tally.sums(0, {}).items, tally.sums(0, {}).receipts)
