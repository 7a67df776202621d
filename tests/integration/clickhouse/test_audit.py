"""The audit's sums, on the embedded engine: what is missing, doubled, refused or never acknowledged."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_REQUEST
from infrasage.v1.telemetry_pb2 import TYPE_METRIC, Receipt
from support import letters
from support.batches import NOW, batch_id, gauge
from support.records import encoded
from support.reopened_store import store_with_tables

from collector.audit import reconcile as auditing
from collector.audit import report as audit_report
from collector.audit.broker_tally import BatchTally, Tally
from collector.audit.reconcile import audit
from collector.audit.report import MINUTE_NS, Report, Window
from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.options import RequestedTables, StoreOptions
from collector.store.retention import Retention

WINDOW = Window(NOW - MINUTE_NS, NOW + MINUTE_NS)
PROCESS = b"p" * 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    made = store_with_tables(
        tmp_path_factory.mktemp("store") / "store", StoreOptions(RequestedTables(Retention(dead_letters=None)))
    )
    yield made
    made.close()


@pytest.fixture
def stored(store: ClickHouseStore) -> Iterator["Stored"]:
    yield Stored(store)
    for table in ("otel_metrics_gauge", "telemetry_batches", "telemetry_dead_letters"):
        store._command(f"TRUNCATE TABLE {table}")


class Stored:
    """A store, and what it was asked to do."""

    def __init__(self, store: ClickHouseStore) -> None:
        self.store = store
        self.inserts = 0

    def insert(self, topic: str, payload: bytes) -> bytes:
        self.inserts += 1
        self.store.insert(topic, [payload], f"{id(self)}/{self.inserts}")
        return payload

    def rows(self, number: int, points: int) -> bytes:
        return self.insert(METRICS_TOPIC, encoded(gauge(number, points)))

    def receipt(self, number: int, accepted: int, **more: Any) -> bytes:
        rejected = more.pop("rejected", 0)
        made = Receipt(route="/v1/metrics", received=accepted + rejected, parts=1, **more)
        if accepted:
            made.accepted.add(type=TYPE_METRIC, items=accepted)
        if rejected:
            made.rejected.add(type=TYPE_METRIC, reason="invalid_value", items=rejected)
        return self.insert(METRICS_TOPIC, letters.receipt(number, made))

    def audit(self, window: Window = WINDOW, **more: Any) -> Report:
        return audit(
            lambda sql: [json.loads(line) for line in self.store.query(sql, "JSONEachRow").splitlines()], window, **more
        )


def name(number: int) -> str:
    return str(UUID(bytes=batch_id(number)))


def test_what_is_whole_adds_up(stored: Stored) -> None:
    """Rows, rejected items with their dead letters and without, and a record that the store refused."""
    stored.rows(1, 3)
    stored.receipt(1, 3, process_id=PROCESS, sequence=1, settled=1)
    stored.receipt(2, 0, rejected=5, dead_letters=2, process_id=PROCESS, sequence=2, settled=2)
    stored.insert(DEAD_LETTERS_TOPIC, letters.dead_letters(letters.letter(2, 0), letters.letter(2, 1)))
    stored.receipt(3, 4, process_id=PROCESS, sequence=3, settled=3)
    stored.insert(DEAD_LETTERS_TOPIC, letters.dead_letters(letters.letter(3, 0, topic=METRICS_TOPIC, item_count=4)))
    found = stored.audit()
    assert (found.adds_up, found.batches, found.lost_requests, found.faults) == (True, 3, 0, [])
    total = found.topics[METRICS_TOPIC]
    assert (total.accepted, total.stored, total.dead_letters) == (7, 3, 4)
    assert (found.rejected, found.rejected_kept, found.dead_letters) == (5, 2, 2)


def test_a_refused_request_needs_no_receipt(stored: Stored) -> None:
    """Its dead letter is of form `request`, and no difference; that of any other form is one."""
    stored.insert(DEAD_LETTERS_TOPIC, letters.dead_letters(letters.letter(1, 0, payload_form=PAYLOAD_FORM_REQUEST)))
    forms = stored.store.query("SELECT PayloadForm FROM telemetry_dead_letters", "TSV")
    assert (b"request\n", True) == (forms, stored.audit().adds_up)
    stored.insert(DEAD_LETTERS_TOPIC, letters.dead_letters(letters.letter(2, 0)))
    assert not stored.audit().adds_up


def test_too_many_here_does_not_make_up_for_too_few_there(stored: Stored) -> None:
    """Each batch is judged by itself."""
    stored.rows(1, 4)
    stored.receipt(1, 3)
    stored.rows(2, 2)
    stored.receipt(2, 3)
    found = stored.audit()
    assert found.topics[METRICS_TOPIC].difference == 2
    assert {fault.batch_id: fault.what for fault in found.faults} == {
        name(1): "metrics: accepted 3, stored 4, dead letters 0",
        name(2): "metrics: accepted 3, stored 2, dead letters 0",
    }
    assert stored.audit(faults_max=1).faults_total == 2
    assert stored.audit(WINDOW._replace(tenant="nobody")).adds_up
    assert not stored.audit(WINDOW._replace(tenant="tenant-a")).adds_up
    assert stored.audit(judged_from=NOW + 1).adds_up


def test_a_number_without_a_receipt_is_a_lost_request(stored: Stored) -> None:
    """It is none if a receipt reports it as failed, or if it is not settled yet."""
    for number, sequence, settled, failed in ((1, 1, 1, []), (2, 5, 2, [(2, 2)]), (3, 9, 9, [(2, 3)])):
        more = letters.any_receipt(failed).failed
        stored.receipt(number, 0, rejected=1, process_id=PROCESS, sequence=sequence, settled=settled, failed=more)
    found = stored.audit()
    assert found.lost_requests == 4  # 4, and 6 to 8
    assert [fault.what.partition(":")[2] for fault in found.faults] == [
        f" number 4 of process {UUID(bytes=PROCESS)}",
        f" numbers 6 to 8 of process {UUID(bytes=PROCESS)}",
    ]
    assert stored.audit(WINDOW._replace(tenant="tenant-a")).lost_requests is None


class AuditedBroker:
    """A broker of these messages."""

    def __init__(self, *messages: bytes, begins: int = 0, first: int | None = NOW - MINUTE_NS) -> None:
        """`first`: when its first message was appended; None: its topics are empty."""
        self.messages = messages
        self.begins = begins
        self.first = {} if first is None else {METRICS_TOPIC: first}

    def tally(self, window: Window, batches: Collection[UUID]) -> audit_report.BrokerSums:
        tally = Tally(window, batches)
        for message in self.messages:
            tally.add(METRICS_TOPIC, message)
        return tally.sums(self.begins, self.first)

    def batches(self, window: Window) -> Mapping[UUID, Mapping[str, int]]:
        tally = BatchTally(window)
        for message in self.messages:
            tally.add(METRICS_TOPIC, message)
        return tally.batches


def test_a_broker_that_keeps_messages_tells_what_was_never_acknowledged(stored: Stored) -> None:
    """A batch without a receipt is no fault where the broker never had one; where it had, it is. And what only the broker has
    is named; but nothing before its oldest message is judged."""
    whole = stored.rows(1, 3) + stored.receipt(1, 3)
    half = stored.rows(2, 2)
    robbed = stored.rows(3, 1)
    lost = encoded(gauge(4, 5)) + letters.receipt(4, Receipt(received=5))
    found = stored.audit(broker=AuditedBroker(whole, half))
    assert (found.unacknowledged, found.receipts_at_fault, [fault.batch_id for fault in found.faults]) == (2, 0, [])
    assert found.topics[METRICS_TOPIC].broker_difference == 1
    stored_receipt = letters.receipt(3, Receipt(received=1))
    found = stored.audit(broker=AuditedBroker(whole, half, robbed, stored_receipt, lost, b"\xff"))
    assert (found.unacknowledged, found.receipts_at_fault) == (1, 1)
    assert {fault.batch_id: fault.what for fault in found.faults} == {
        name(3): "no receipt; metrics: accepted 0, stored 1, dead letters 0",
        name(4): "the broker has it (5 metrics), the store has nothing",
    }
    later = stored.audit(broker=AuditedBroker(begins=NOW + MINUTE_NS))
    assert (later.topics[METRICS_TOPIC].broker_difference, later.receipts_at_fault) == (0, 2)


@pytest.mark.parametrize(
    "first", [NOW + MINUTE_NS, (NOW // MINUTE_NS + 1) * MINUTE_NS - 1, None], ids=["later", "in the same minute", "nothing yet"]
)
def test_what_a_log_that_is_gone_had_is_not_compared(stored: Stored, first: int | None) -> None:
    """The topic was made anew, or Kafka was replaced: what was stored before its first message is no difference. Nor is a batch
    that lost its receipt forgiven, because Kafka does not have it any more."""
    stored.rows(1, 3)
    stored.receipt(1, 3)
    found = stored.audit(broker=AuditedBroker(first=first))
    assert (0, 0, True) == (found.difference, found.topics[METRICS_TOPIC].broker_difference, found.adds_up)
    assert "its log was replaced" in " ".join(found.notes)
    stored.rows(2, 2)
    found = stored.audit(broker=AuditedBroker(first=first))
    assert (0, 1) == (found.unacknowledged, found.receipts_at_fault)


def test_slices_change_nothing(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is in one slice, however small slices are."""
    stored.rows(1, 3)
    stored.receipt(1, 3)
    stored.receipt(2, 1)
    whole = stored.audit(Window(NOW - 10 * MINUTE_NS, NOW + MINUTE_NS))
    monkeypatch.setattr(auditing, "_SLICE_BATCHES_MAX", 1)
    assert stored.audit(Window(NOW - 10 * MINUTE_NS, NOW + MINUTE_NS)) == whole


RANGES = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(RANGES, st.lists(RANGES))
def test_what_is_left_of_a_gap(gap: tuple[int, int], ranges: Collection[tuple[int, int]]) -> None:
    """The result is that of counting number by number."""
    expected = set(range(gap[0], gap[1] + 1)) - {n for first, last in ranges for n in range(first, last + 1)}
    left = list(auditing._without(*gap, ranges))
    assert {n for first, last in left for n in range(first, last + 1)} == expected
    assert sum(last - first + 1 for first, last in left) == len(expected)
