"""Messages of topics that others write: what each becomes, at each reading the same."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToJson
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_LOGS, PAYLOAD_FORM_REQUEST, DeadLetter, DeadLetterBatch
from infrasage.v1.telemetry_pb2 import Receipt
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.fakes.receiving import NOW_UNIX_NANO, otlp_logs, otlp_metrics, otlp_traces
from support.records import flat

from adapters.record import LOGS, METRICS, TRACES, Adapted
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Message, MessageContext, Partition, Range, Unread
from collector.broker.range_digest import with_digest
from collector.ingest.foreign_topics import ENCODINGS, AdaptedRange, ForeignTopic, ForeignTopics, TopicLimits, batch_id_of
from collector.ingest.validate import Limits
from collector.records.dead_letter import Caps, item_id, request_id

NOW_MS = NOW_UNIX_NANO // 1_000_000
DAY_MS = 86_400_000
LOG = "cluster.0b7b0f6c-2b37-4b5c-8f5e-3f1d3f1c2a11.7"
TOPIC = ForeignTopic("otlp_logs", "otlp_proto", LOGS, "acme")
CAPS = Caps(1000, 1 << 20)
KEPT = 1_700_000_000_000_000_000
LIMITS: dict[str, Any] = {
    "past_max_s": 86_400,
    "future_max_s": 600,
    "attributes_max": 64,
    "attribute_key_bytes_max": 256,
    "attribute_value_bytes_max": 1024,
    "name_bytes_max": 256,
}


class Observed:
    """Remembers what became of items."""

    def __init__(self) -> None:
        self.adapted: list[Adapted] = []

    def ingested(self, adapted: Adapted, dead_letters: Mapping[int, int]) -> None:
        self.adapted.append(adapted)


class Appended:
    """Remembers what was appended."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Message]] = []

    async def append(self, messages: Sequence[Message]) -> None:
        self.calls.append(messages)


def topics(
    topic: ForeignTopic = TOPIC,
    *,
    observed: Observed | None = None,
    appended: Appended | None = None,
    message_bytes_max: int = 1 << 19,
    caps: Caps = CAPS,
    tenant_header: str = "",
    pause: Callable[[], None] = lambda: None,
    **limits: Any,
) -> ForeignTopics:
    given = TopicLimits(Limits(**{**LIMITS, **limits}), caps, message_bytes_max, 1 << 26, 1 << 19, 1 << 16)
    append = (appended or Appended()).append
    return ForeignTopics(
        [topic],
        given,
        append,
        observed or Observed(),
        tenant_header=tenant_header,
        now_unix_nano=lambda: KEPT,
        pause=pause,
    )


def range_of(
    *payloads: bytes,
    topic: str = TOPIC.name,
    start: int = 10,
    at_ms: int = NOW_MS,
    headers: Sequence[tuple[str, bytes]] = (),
) -> Range:
    contexts = [MessageContext(start + index, 7, at_ms, headers) for index in range(len(payloads))]
    return Range(Partition(topic, 3), start, start + len(payloads), payloads, log=LOG, contexts=contexts)


async def letters(adapted: AdaptedRange, appended: Appended) -> list[DeadLetter]:
    await adapted.keep(len(adapted.messages.payloads))
    return [
        record.letter
        for messages in appended.calls
        for message in messages
        for record in DeadLetterBatch.FromString(message.payload).records
    ]


def receipt_of(payload: bytes) -> Receipt:
    (receipt,) = [record.receipt for record in flat(payload).records if record.HasField("receipt")]
    return receipt


def items_of(payload: bytes) -> int:
    return sum(record.item_count for record in flat(payload).records)


def test_a_message_becomes_one_of_ours() -> None:
    """It has a receipt, the tenant of its topic, and the time of the message."""
    observed = Observed()
    adapted = topics(observed=observed).adapt(range_of(otlp_logs(good=2), otlp_logs(good=1)))
    stored = adapted.messages
    assert (LOGS_TOPIC, Partition("otlp_logs", 3), 10, 12, ()) == (
        stored.stored_as,
        stored.partition,
        stored.start,
        stored.end,
        stored.contexts,
    )
    assert [2, 1] == [items_of(bytes(payload)) for payload in stored.payloads]
    for payload in stored.payloads:
        for record in flat(bytes(payload)).records:
            assert ("acme", NOW_MS * 1_000_000) == (record.tenant_id, record.received_time_unix_nano)
    receipt = receipt_of(bytes(stored.payloads[0]))
    assert ("kafka:otlp_logs", 2, 0, b"") == (receipt.route, receipt.received, receipt.sequence, receipt.process_id)
    adapted.stored(1)
    assert [2] == [each.accepted_count() for each in observed.adapted], "only what is committed is counted"


@pytest.mark.parametrize(
    ("signal", "body", "stored_as"),
    [(METRICS, otlp_metrics, METRICS_TOPIC), (LOGS, otlp_logs, LOGS_TOPIC), (TRACES, otlp_traces, TRACES_TOPIC)],
)
def test_each_signal_is_read(signal: int, body: Any, stored_as: str) -> None:
    topic = ForeignTopic("theirs", "otlp_proto", signal, "acme")
    stored = topics(topic).adapt(range_of(body(good=3), topic="theirs")).messages
    (payload,) = stored.payloads
    assert (stored_as, 3) == (stored.stored_as, items_of(bytes(payload)))
    (record,) = flat(bytes(payload)).records[:-1]
    assert {METRICS: record.metrics, LOGS: record.log_records, TRACES: record.spans}[signal]


def test_json_is_the_same_as_protobuf() -> None:
    body = otlp_logs(good=3, padding=5)
    json = MessageToJson(ExportLogsServiceRequest.FromString(body)).encode()
    by_proto = topics().adapt(range_of(body)).messages
    by_json = topics(TOPIC._replace(encoding="otlp_json")).adapt(range_of(json)).messages
    assert by_proto.payloads == by_json.payloads
    assert 3 == items_of(bytes(by_json.payloads[0]))


async def test_a_range_that_is_read_again_is_the_same() -> None:
    """Another process at another time reads the same, in doubt, with its digest, and with other ends."""
    bodies = [otlp_logs(good=2), otlp_logs(good=1, late=1), b"\xff\xff", otlp_logs(good=3)]
    appended, later, part_appended = Appended(), Appended(), Appended()
    first = topics(appended=appended).adapt(range_of(*bodies))
    again = topics(appended=later).adapt(with_digest(range_of(*bodies))._replace(in_doubt=True))
    assert first.messages.payloads == again.messages.payloads
    kept = await letters(first, appended)
    assert kept == await letters(again, later)
    part = topics(appended=part_appended).adapt(range_of(*bodies[1:3], start=11)._replace(log=LOG.replace(".7", ".8")))
    assert first.messages.payloads[1:3] == part.messages.payloads
    assert kept == await letters(part, part_appended)
    assert 2 == len(kept)


async def test_rejected_items_are_dead_letters() -> None:
    """They have the ids of their places and a payload that the adapter reads again, and are counted in the receipt."""
    appended = Appended()
    adapted = topics(appended=appended).adapt(range_of(otlp_logs(good=1, late=2)))
    (payload,) = adapted.messages.payloads
    batch_id = flat(bytes(payload)).records[0].batch_id
    receipt = receipt_of(bytes(payload))
    assert (3, 2, 1) == (receipt.received, receipt.dead_letters, items_of(bytes(payload)))
    found = await letters(adapted, appended)
    assert [item_id(batch_id, index) for index in (1, 2)] == [letter.id for letter in found]
    for letter in found:
        assert ("acme", "kafka:otlp_logs", "timestamp_too_old", PAYLOAD_FORM_OTLP_LOGS) == (
            letter.tenant_id,
            letter.route,
            letter.reason,
            letter.payload_form,
        )
        assert (NOW_MS * 1_000_000, KEPT) == (letter.received_time_unix_nano, letter.kept_time_unix_nano)
        assert 1 == len(ExportLogsServiceRequest.FromString(letter.payload).resource_logs)


async def test_only_the_letters_of_what_is_stored_are_kept() -> None:
    """A range that is cut is repeated from there on."""
    appended = Appended()
    adapted = topics(appended=appended).adapt(range_of(otlp_logs(good=0, late=1), otlp_logs(good=0, late=1)))
    await adapted.keep(1)
    assert 1 == sum(len(DeadLetterBatch.FromString(m.payload).records) for call in appended.calls for m in call)


async def test_what_can_not_be_read_is_a_dead_letter_and_stops_nothing() -> None:
    """No protobuf; a price too high; no timestamp: the whole message is kept, and what comes behind it is stored."""
    appended = Appended()
    read = topics(appended=appended, request_elements_max=20)
    dear = otlp_logs(good=100)
    messages = range_of(b"\xff\xff", dear, otlp_logs(), otlp_logs())
    contexts = list(messages.contexts)
    contexts[2] = contexts[2]._replace(timestamp_ms=-1)
    adapted = read.adapt(messages._replace(contexts=contexts))
    assert [b"", b"", b""] == adapted.messages.payloads[:3]
    assert 1 == items_of(bytes(adapted.messages.payloads[3]))
    found = await letters(adapted, appended)
    assert ["invalid_protobuf", "payload_too_large", "invalid_timestamp"] == [letter.reason for letter in found]
    assert [b"\xff\xff", dear, otlp_logs()] == [letter.payload for letter in found]
    for letter, context in zip(found, contexts, strict=False):
        assert (PAYLOAD_FORM_REQUEST, "acme") == (letter.payload_form, letter.tenant_id)
        assert letter.id == request_id(batch_id_of(LOG.rpartition(".")[0], "otlp_logs", 3, context))


@pytest.mark.parametrize(("is_too_large", "reason"), [(True, "payload_too_large"), (False, "invalid_compression")])
async def test_what_was_not_read_is_a_dead_letter(is_too_large: bool, reason: str) -> None:
    """It has its beginning, its size, and the reason."""
    appended = Appended()
    messages = range_of(otlp_logs(), b"beginning", otlp_logs())
    contexts = list(messages.contexts)
    contexts[1] = contexts[1]._replace(unread=Unread("for a reason", is_too_large, 1 << 30))
    adapted = topics(appended=appended).adapt(messages._replace(contexts=contexts))
    assert [1, 0, 1] == [items_of(bytes(payload)) for payload in adapted.messages.payloads]
    (letter,) = await letters(adapted, appended)
    assert (reason, "for a reason", b"beginning", 1 << 30) == (
        letter.reason,
        letter.message,
        letter.payload,
        letter.payload_size_bytes,
    )
    assert letter.id == request_id(batch_id_of(LOG.rpartition(".")[0], "otlp_logs", 3, contexts[1]))


async def test_a_defect_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Adapted:
        raise ZeroDivisionError("of the adapter")

    monkeypatch.setitem(ENCODINGS["otlp_proto"], LOGS, fails)
    appended = Appended()
    adapted = topics(appended=appended).adapt(range_of(otlp_logs()))
    assert [b""] == adapted.messages.payloads
    (letter,) = await letters(adapted, appended)
    assert ("internal", otlp_logs()) == (letter.reason, letter.payload)
    assert "of the adapter" in letter.message


def test_a_message_of_another_kind_is_not_taken_for_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing of a message is known, it is not passed over."""

    def takes_nothing(*_: object) -> Adapted:
        adapted = Adapted()
        adapted.unknown_fields = ["field 9"]
        return adapted

    monkeypatch.setitem(ENCODINGS["otlp_proto"], LOGS, takes_nothing)
    (read,) = topics().adapt(range_of(b"\x4a\x00"))._read
    assert 1 == len(read.letters)


def test_what_is_empty_becomes_nothing() -> None:
    """A tombstone, and a request without items."""
    adapted = topics().adapt(range_of(b"", otlp_logs(good=0)))
    assert [b"", b""] == adapted.messages.payloads
    assert not any(read.letters for read in adapted._read)


def test_the_window_counts_from_the_messages_timestamp() -> None:
    """What waited in Kafka for a month is as old as it was when it was written."""
    then_ms = NOW_MS - 30 * DAY_MS
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=then_ms * 1_000_000)
    record.body.string_value = "x"
    (payload,) = topics().adapt(range_of(request.SerializeToString(), at_ms=then_ms)).messages.payloads
    assert 1 == items_of(bytes(payload))
    (payload,) = topics().adapt(range_of(request.SerializeToString())).messages.payloads
    assert (0, {"timestamp_too_old"}) == (
        items_of(bytes(payload)),
        {each.reason for each in receipt_of(bytes(payload)).rejected},
    )


@pytest.mark.parametrize(
    ("headers", "tenant", "is_read"),
    [
        ([], "acme", True),
        ([("X-Tenant", b"globex")], "globex", True),
        ([("x-tenant", b"globex")], "globex", True),
        ([("other", b"globex")], "acme", True),
        ([("X-Tenant", b"")], "acme", False),
        ([("X-Tenant", b"a b\n")], "acme", False),
        ([("X-Tenant", b"\xff")], "acme", False),
        ([("X-Tenant", b"t" * 129)], "acme", False),
    ],
)
async def test_a_header_names_the_tenant(headers: list[tuple[str, bytes]], tenant: str, is_read: bool) -> None:
    """One that names none is not taken for somebody else's: the message is a dead letter of the topic's tenant."""
    appended = Appended()
    adapted = topics(appended=appended, tenant_header="X-Tenant").adapt(range_of(otlp_logs(), headers=headers))
    if is_read:
        assert {tenant} == {record.tenant_id for record in flat(bytes(adapted.messages.payloads[0])).records}
        return
    (letter,) = await letters(adapted, appended)
    assert ("acme", "invalid_record", True) == (letter.tenant_id, letter.reason, "X-Tenant" in letter.message)


def test_without_the_setting_a_header_names_no_tenant() -> None:
    adapted = topics().adapt(range_of(otlp_logs(), headers=[("X-Tenant", b"globex")]))
    assert {"acme"} == {record.tenant_id for record in flat(bytes(adapted.messages.payloads[0])).records}


def test_a_large_message_is_one_message() -> None:
    """Larger than ours are: each of its items once."""
    (payload,) = topics(message_bytes_max=1 << 16).adapt(range_of(otlp_logs(good=3000, padding=1000))).messages.payloads
    assert (3000, 3000) == (items_of(bytes(payload)), receipt_of(bytes(payload)).received)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_large_message_is_read_with_rests(encoding: str) -> None:
    """The writer is heard of meanwhile, and what else the process does goes on: compiled code keeps the interpreter's lock."""
    body = otlp_logs(good=10_000, padding=100)
    if encoding == "otlp_json":
        body = MessageToJson(ExportLogsServiceRequest.FromString(body), indent=None).encode()
    rests: list[None] = []
    topics(TOPIC._replace(encoding=encoding), pause=lambda: rests.append(None)).adapt(range_of(body))
    assert len(rests) >= len(body) >> 18


def test_a_cap_of_dead_letters_is_of_one_message() -> None:
    """So another writer keeps the same ones."""
    adapted = topics(caps=Caps(2, 1 << 20)).adapt(range_of(*[otlp_logs(good=0, late=3)] * 3))
    for payload in adapted.messages.payloads:
        assert (3, 2) == (receipt_of(bytes(payload)).received, receipt_of(bytes(payload)).dead_letters)


async def test_letters_are_appended_in_parts() -> None:
    """The broker holds only so many bytes that wait."""
    appended = Appended()
    adapted = topics(appended=appended, caps=Caps(10_000, 1 << 30)).adapt(
        range_of(*[otlp_logs(good=0, late=300, padding=1000)] * 8)
    )
    assert 2400 == len(await letters(adapted, appended))
    assert len(appended.calls) > 1
    assert all(sum(len(each.payload) for each in call) <= max(1 << 20, len(call[0].payload)) for call in appended.calls)


def test_a_place_has_its_batch_id() -> None:
    """A UUID whose first bytes are the time; another one at another offset, partition, epoch, topic or log."""
    context = MessageContext(5, 7, NOW_MS, ())
    ids = [
        batch_id_of("log", "topic", 3, context),
        batch_id_of("log", "topic", 3, context._replace(offset=6)),
        batch_id_of("log", "topic", 3, context._replace(leader_epoch=8)),
        batch_id_of("log", "topic", 4, context),
        batch_id_of("log", "other", 3, context),
        batch_id_of("another", "topic", 3, context),
    ]
    assert 6 == len(set(ids))
    assert batch_id_of("log", "topic", 3, context) == ids[0]
    for id_ in ids:
        assert (8, NOW_MS) == (UUID(bytes=id_).version, int.from_bytes(id_[:6], "big"))
    assert 8 == UUID(bytes=batch_id_of("log", "topic", 3, context._replace(timestamp_ms=-1))).version
