"""Receipts are what protobuf would write, and none that is lost goes unnoticed."""

import os

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from infrasage.v1.telemetry_pb2 import AcceptedItems, RejectedItems, TelemetryBatch
from infrasage.v1.telemetry_pb2 import Receipt as ReceiptMessage

from adapters.errors import INVALID_JSON, REASON, REASONS
from adapters.record import LOGS, SOURCE_NATIVE, Adapted, Header, Part
from adapters.record_headers import header_first
from collector.ingest.receipts import FAILED_REPORTED_MAX, Receipt, Receipts, unnumbered_record

PROCESS_ID = bytes(range(16))
HEADER = Header("acme", SOURCE_NATIVE, 1_775_822_400_000_000_000, b"b" * 16)
ITEM_REASONS = [reason.code for reason in REASONS if reason.code < INVALID_JSON]

COUNTS = st.integers(1, 2**40)


def adapted(accepted: dict[int, int], rejected: dict[tuple[int, int], int], parts: int) -> Adapted:
    out = Adapted()
    for type_, items in accepted.items():
        out.accepted[type_] = items
    out.rejected = rejected
    out.parts = [Part(LOGS, b"", 1, 0)] * parts
    return out


ADAPTED = st.builds(
    adapted,
    st.dictionaries(st.integers(0, 6), COUNTS),
    st.dictionaries(st.tuples(st.integers(0, 6), st.sampled_from(ITEM_REASONS)), COUNTS, max_size=8),
    st.integers(0, 300),
)
ONE = adapted({2: 1}, {}, 1)


def read(record: bytes) -> ReceiptMessage:
    """The receipt of a batch of one record, which has nothing but its header beside."""
    (found,) = TelemetryBatch.FromString(record).records
    assert (found.tenant_id, found.source, found.batch_id) == ("acme", SOURCE_NATIVE, b"b" * 16)
    assert found.received_time_unix_nano == 1_775_822_400_000_000_000
    receipt = ReceiptMessage()
    receipt.CopyFrom(found.receipt)
    found.ClearField("receipt")
    assert header_first(TelemetryBatch(records=[found]).SerializeToString()).endswith(HEADER.prefix)
    return receipt


def outcome(route: str, what: Adapted, dead_letters: int) -> ReceiptMessage:
    """The slow twin: what a receipt says of its request."""
    return ReceiptMessage(
        route=route,
        received=sum(what.accepted) + sum(what.rejected.values()),
        accepted=[AcceptedItems(type=type_, items=items) for type_, items in enumerate(what.accepted) if items],  # type: ignore[arg-type]
        rejected=[
            RejectedItems(type=type_, reason=REASON[reason].name, items=items)  # type: ignore[arg-type]
            for (type_, reason), items in what.rejected.items()
        ],
        dead_letters=dead_letters,
        parts=len(what.parts),
    )


@given(route=st.text(max_size=40), what=ADAPTED, dead_letters=st.integers(0, 2**40), before=st.integers(0, 200))
def test_a_receipt_is_what_protobuf_would_write(route: str, what: Adapted, dead_letters: int, before: int) -> None:
    """It is the same to the byte, with the failures before it."""
    receipts = Receipts(PROCESS_ID)
    for _ in range(before):
        receipts.failed(receipts.begin(HEADER, b"", ONE, 0))
    receipt = receipts.begin(HEADER, route.encode(), what, dead_letters)
    expected = outcome(route, what, dead_letters)
    expected.process_id, expected.sequence, expected.settled = PROCESS_ID, before + 1, before + 1
    if before:
        expected.failed.add(first=1, last=before)
    assert read(receipt.record) == expected
    assert read(receipt.record).SerializeToString() == expected.SerializeToString()


@given(what=ADAPTED)
def test_the_receipt_of_a_replay_has_no_number(what: Adapted) -> None:
    assert outcome("/v1/logs", what, 0) == read(unnumbered_record(HEADER, b"/v1/logs", what))


def test_what_is_not_reported_yet_does_not_look_lost() -> None:
    """If there are more failures than one receipt has, it has the oldest, and nothing past them is called settled."""
    receipts = Receipts(PROCESS_ID)
    begun = [receipts.begin(HEADER, b"", ONE, 0) for _ in range(2 * FAILED_REPORTED_MAX + 20)]
    for receipt in begun[::2]:
        receipts.failed(receipt)
    for receipt in begun[1::2]:
        receipts.kept(receipt)
    first = receipts.begin(HEADER, b"", ONE, 0)
    told = read(first.record)
    assert [(range_.first, range_.last) for range_ in told.failed] == [(n, n) for n in range(1, 2 * FAILED_REPORTED_MAX, 2)]
    assert told.settled == 2 * FAILED_REPORTED_MAX + 1
    receipts.kept(first)
    rest = read(receipts.begin(HEADER, b"", ONE, 0).record)
    assert [range_.first for range_ in rest.failed] == list(range(2 * FAILED_REPORTED_MAX + 1, 2 * FAILED_REPORTED_MAX + 20, 2))
    assert rest.settled == first.sequence + 1


def test_a_long_outage_takes_no_memory() -> None:
    """Neighbours are one range, however many fail, and in whatever order."""
    receipts = Receipts(PROCESS_ID)
    for _ in range(300):
        begun = [receipts.begin(HEADER, b"", ONE, 0) for _ in range(10)]
        for receipt in sorted(begun, key=lambda receipt: receipt.sequence * 7 % 10):
            receipts.failed(receipt)
    last = read(receipts.begin(HEADER, b"", ONE, 0).record)
    assert [(1, 3000)] == [(range_.first, range_.last) for range_ in last.failed]


def test_a_failure_is_reported_until_that_is_durable() -> None:
    receipts = Receipts(PROCESS_ID)
    receipts.failed(receipts.begin(HEADER, b"", ONE, 0))
    for expected in (1, 2, 3):
        receipt = receipts.begin(HEADER, b"", ONE, 0)
        assert [(1, expected)] == [(range_.first, range_.last) for range_ in read(receipt.record).failed]
        receipts.failed(receipt)
    receipts.kept(receipts.begin(HEADER, b"", ONE, 0))
    assert not read(receipts.begin(HEADER, b"", ONE, 0).record).failed


class Process(RuleBasedStateMachine):
    """One process's requests, in any order of beginning and ending; and what an auditor makes of the receipts it finds."""

    under_way = Bundle("under way")

    def __init__(self) -> None:
        super().__init__()
        self.receipts = Receipts(PROCESS_ID)
        self.begun = 0
        self.kept: dict[int, ReceiptMessage] = {}
        self.failures: set[int] = set()

    @rule(target=under_way)
    def begin(self) -> Receipt:
        self.begun += 1
        receipt = self.receipts.begin(HEADER, b"", ONE, 0)
        assert receipt.sequence == self.begun
        return receipt

    @rule(receipt=consumes(under_way))
    def keep(self, receipt: Receipt) -> None:
        self.kept[receipt.sequence] = read(receipt.record)
        self.receipts.kept(receipt)

    @rule(receipt=consumes(under_way))
    def fail(self, receipt: Receipt) -> None:
        self.failures.add(receipt.sequence)
        self.receipts.failed(receipt)

    def _settled(self) -> set[int]:
        return set(range(1, max((receipt.settled for receipt in self.kept.values()), default=1)))

    def _told(self) -> set[int]:
        return {
            number
            for receipt in self.kept.values()
            for range_ in receipt.failed
            for number in range(range_.first, range_.last + 1)
        }

    @invariant()
    def nothing_is_missed_in_vain(self) -> None:
        """Each settled number has its receipt, or is reported as failed."""
        assert self._settled() <= self.kept.keys() | self._told()

    @invariant()
    def only_failures_are_told(self) -> None:
        assert self._told() <= self.failures

    @invariant()
    def what_is_lost_is_missed(self) -> None:
        """Without any one of the receipts that are settled, its number is in neither."""
        for lost in self._settled() & self.kept.keys():
            others = {number: receipt for number, receipt in self.kept.items() if number != lost}
            if lost < max((receipt.settled for receipt in others.values()), default=1):
                assert lost not in others.keys() | (self._told() & self.failures)

    def teardown(self) -> None:
        """Once all is over, one more receipt settles everything."""
        for sequence in range(1, self.begun + 1):
            if sequence not in self.kept.keys() | self.failures:
                return
        receipt = read(self.receipts.begin(HEADER, b"", ONE, 0).record)
        assert receipt.settled == self.begun + 1 or len(receipt.failed) == FAILED_REPORTED_MAX
        told = {number for range_ in receipt.failed for number in range(range_.first, range_.last + 1)}
        assert self.failures - self._told() <= told


TestProcess = Process.TestCase


def test_processes_are_distinguished() -> None:
    ids = [os.urandom(16), os.urandom(16)]
    assert ids == [read(Receipts(id_).begin(HEADER, b"", ONE, 0).record).process_id for id_ in ids]
