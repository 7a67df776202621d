"""Dead letters: what an entry says, that it is one however often it is kept, and that an attack fills nothing."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.dead_letter_pb2 import (
    DEAD_LETTER_ACTION_DISCARDED,
    PAYLOAD_FORM_NATIVE_JSON,
    PAYLOAD_FORM_REQUEST,
    PAYLOAD_FORM_UNSPECIFIED,
    DeadLetter,
    DeadLetterBatch,
    DeadLetterEvent,
    DeadLetterRecord,
)
from infrasage.v1.telemetry_pb2 import SOURCE_NATIVE as SOURCE
from infrasage.v1.telemetry_pb2 import TYPE_LOG as LOG

from adapters.errors import INVALID_JSON, INVALID_VALUE, MISSING_BODY
from adapters.record import SOURCE_NATIVE, TYPE_LOG, Adapted, Rejection
from collector.broker.contract import DEAD_LETTERS_TOPIC, Message
from collector.records.dead_letter import (
    TEXT_BYTES_MAX,
    Budget,
    Caps,
    DeadLetters,
    Kept,
    Origin,
    event_messages,
    item_id,
    messages,
    record_id,
    replay_batch_id,
    text,
)

NOW = 1_775_822_400_000_000_000
MINUTE_NS = 60 * 10**9
ORIGIN = Origin("acme", SOURCE_NATIVE, "/api/v1/telemetry/batch", NOW, b"b" * 16, PAYLOAD_FORM_NATIVE_JSON)


def keep(letters: DeadLetters, origin: Origin, what: Adapted) -> Kept:
    """As the pipeline does: made, and counted for its tenant."""
    kept = letters.make(origin, what)
    letters.count(origin.tenant, what)
    return kept


def adapted(*rejections: Rejection) -> Adapted:
    """As an adapter leaves it."""
    out = Adapted()
    out.rejections.extend(rejections)
    for rejection in rejections:
        key = (rejection.type, rejection.reason)
        out.rejected[key] = out.rejected.get(key, 0) + 1
        if rejection.payload:
            out.dead_letter_items += 1
            out.dead_letter_bytes += len(rejection.payload)
    return out


def rejection(index: int = 0, payload: bytes = b"{}", reason: int = INVALID_VALUE, message: str = "no number") -> Rejection:
    return Rejection(index, TYPE_LOG, reason, message, b"payment-api", payload)


def entries(appended: list[Message]) -> list[DeadLetter]:
    assert {message.topic for message in appended} <= {DEAD_LETTERS_TOPIC}
    return [record.letter for message in appended for record in DeadLetterBatch.FromString(message.payload).records]


def test_an_entry_says_what_was_rejected_and_why() -> None:
    kept = DeadLetters(Caps(10, 1000), 10_000).make(ORIGIN, adapted(rejection(7, b'{"value": "x"}')))
    assert entries(kept.messages) == [
        DeadLetter(
            id=item_id(b"b" * 16, 7),
            tenant_id="acme",
            received_time_unix_nano=NOW,
            kept_time_unix_nano=NOW,
            source=SOURCE,
            type=LOG,
            route="/api/v1/telemetry/batch",
            reason="invalid_value",
            message="no number",
            service_id="payment-api",
            batch_id=b"b" * 16,
            item_index=7,
            item_count=1,
            payload=b'{"value": "x"}',
            payload_form=PAYLOAD_FORM_NATIVE_JSON,
            payload_size_bytes=14,
        )
    ]


def test_what_has_no_payload_is_only_counted() -> None:
    """The adapter left it out, for the budget was spent."""
    what = adapted(rejection(0), rejection(1, b""), rejection(2, b"", MISSING_BODY), rejection(3, b"x", MISSING_BODY))
    kept = DeadLetters(Caps(10, 1000), 10_000).make(ORIGIN, what)
    assert [0, 3] == [entry.item_index for entry in entries(kept.messages)]
    assert (2, {INVALID_VALUE: 1, MISSING_BODY: 1}) == (kept.items, kept.by_reason)


def test_nothing_rejected_is_no_message() -> None:
    kept = DeadLetters(Caps(10, 1000), 10_000).make(ORIGIN, adapted())
    assert ([], 0, {}) == kept


def test_caps_are_a_tenants_and_a_minutes() -> None:
    """What one tenant has used, another has not, and it is there again in the next minute."""
    letters = DeadLetters(Caps(3, 10), 10_000)
    assert Budget(3, 10) == letters.budget("acme", NOW)
    keep(letters, ORIGIN, adapted(rejection(0, b"xxxx"), rejection(1, b"y")))
    assert Budget(1, 5) == letters.budget("acme", NOW + MINUTE_NS - 1)
    assert Budget(3, 10) == letters.budget("other", NOW)
    assert Budget(3, 10) == letters.budget("acme", NOW + MINUTE_NS)


def test_a_clock_that_is_set_back_begins_a_minute_too() -> None:
    letters = DeadLetters(Caps(3, 10), 10_000)
    letters.budget("acme", NOW)
    keep(letters, ORIGIN, adapted(rejection()))
    assert Budget(3, 10) == letters.budget("acme", NOW - 5 * MINUTE_NS)


@given(
    requests=st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 30), st.lists(st.integers(1, 9), max_size=6)), max_size=40
    )
)
def test_caps_hold(requests: list[tuple[str, int, list[int]]]) -> None:
    """No more is kept in a minute, for a tenant, if its adapter obeys its budget."""
    caps = Caps(7, 30)
    letters = DeadLetters(caps, 10_000)
    now = NOW
    items: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    for tenant, seconds, sizes in requests:
        now += seconds * 10**9
        budget = letters.budget(tenant, now)
        assert min(budget) >= 0
        rejections: list[Rejection] = []
        for index, payload_bytes in enumerate(sizes):
            used = sum(len(each.payload) for each in rejections)
            if len(rejections) < budget.items and used + payload_bytes <= budget.size_bytes:
                rejections.append(rejection(index, b"x" * payload_bytes))
        kept = keep(letters, ORIGIN._replace(tenant=tenant), adapted(*rejections))
        minute = (tenant, now // MINUTE_NS)
        items[minute] += kept.items
        size[minute] += sum(entry.payload_size_bytes for entry in entries(kept.messages))
        assert items[minute] <= caps.items_per_minute_max
        assert size[minute] <= caps.bytes_per_minute_max


@given(sizes=st.lists(st.integers(1, 3000), max_size=30), message_bytes_max=st.integers(500, 4000))
def test_messages_are_no_larger_than_they_may_be(sizes: list[int], message_bytes_max: int) -> None:
    """Entries are packed in their order; one whose payload alone is too long is kept without it."""
    what = adapted(*(rejection(index, b"x" * size) for index, size in enumerate(sizes)))
    appended = DeadLetters(Caps(1000, 10**9), message_bytes_max).make(ORIGIN, what).messages
    assert all(len(message.payload) <= message_bytes_max for message in appended)
    found = entries(appended)
    assert list(range(len(sizes))) == [entry.item_index for entry in found]
    assert sizes == [entry.payload_size_bytes for entry in found]
    for entry in found:
        assert len(entry.payload) in (0, entry.payload_size_bytes)
        assert bool(entry.payload) == (entry.payload_form != PAYLOAD_FORM_UNSPECIFIED)
        assert bool(entry.payload) or entry.payload_size_bytes > message_bytes_max - 400
    for message, following in pairwise(appended):
        first = DeadLetterBatch(records=DeadLetterBatch.FromString(following.payload).records[:1])
        assert len(message.payload) + first.ByteSize() > message_bytes_max
    concatenated = DeadLetterBatch.FromString(b"".join(message.payload for message in appended))
    assert found == [record.letter for record in concatenated.records]


@pytest.mark.parametrize("others", ["\ud800 half", b"\xff\xfe", "€" * TEXT_BYTES_MAX, b"x" * 5000, "", "plain"])
def test_text_of_others_is_made_fit(others: str | bytes) -> None:
    """Protobuf takes it, whatever a sender has put in, and it is not long."""
    made = text(others)
    assert len(made.encode()) <= TEXT_BYTES_MAX
    assert made == text(made)
    if others in ("", "plain"):
        assert made == others


def test_ids_tell_places_apart() -> None:
    """Each is a UUID of version 8 with 16 bytes, and always the same."""
    batch, other = b"b" * 16, b"c" * 16
    ids = [
        *(item_id(batch_id, index) for batch_id in (batch, other) for index in (0, 1, 2**31)),
        *(
            record_id(log, topic, *place)
            for log in ("", "log", "other")
            for topic in ("t", "u")
            for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 1)]
        ),
        replay_batch_id(batch),
        replay_batch_id(other),
    ]
    assert len(set(ids)) == len(ids)
    assert {(16, 8, 2)} == {(len(id_), id_[6] >> 4, id_[8] >> 6) for id_ in ids}
    assert item_id(batch, 2**31) == ids[2]


def test_events_are_in_sequence() -> None:
    """They are ordered messages, so that one writer has all of them; entries are not."""
    event = DeadLetterEvent(id=b"e" * 16, dead_letter_id=b"d" * 16, action=DEAD_LETTER_ACTION_DISCARDED)
    (message,) = event_messages([event, event], 1000)
    assert message.ordered
    assert [event, event] == [record.event for record in DeadLetterBatch.FromString(message.payload).records]
    (plain,) = messages([DeadLetterRecord(letter=DeadLetter(id=b"d" * 16))], 1000)
    assert not plain.ordered


def test_a_refused_request_is_one_entry_with_the_beginning_of_its_body() -> None:
    """It takes of the tenant's caps what is kept of it, and nothing is kept where there is no room."""
    letters = DeadLetters(Caps(2, 150), 1 << 20, payload_bytes_max=100)
    [message] = letters.of_request(ORIGIN, INVALID_JSON, "cannot decode JSON", b"{" * 1000, 1000)
    [record] = DeadLetterBatch.FromString(message.payload).records
    letter = record.letter
    assert (b"{" * 100, 1000, PAYLOAD_FORM_REQUEST) == (letter.payload, letter.payload_size_bytes, letter.payload_form)
    assert ("invalid_json", "cannot decode JSON", 0) == (letter.reason, letter.message, letter.item_count)
    assert Budget(1, 50) == letters.budget("acme", NOW)
    assert [] == letters.of_request(ORIGIN, INVALID_JSON, "", b"{" * 51, 51)
    assert [] == letters.of_request(ORIGIN, INVALID_JSON, "", b"", 0)
    assert 1 == len(letters.of_request(ORIGIN, INVALID_JSON, "", b"{" * 50, 50))
    assert [] == letters.of_request(ORIGIN, INVALID_JSON, "", b"{", 1)


def test_many_refused_requests_keep_little_of_each() -> None:
    """Once 2 MiB were kept for a tenant in a minute: otherwise few bytes that are sent would become much memory."""
    letters = DeadLetters(Caps(10_000, 64 << 20), 1 << 20)
    body = b"x" * 120_000

    def kept(origin: Origin, count: int) -> list[int]:
        return [len(entries(letters.of_request(origin, INVALID_JSON, "", body, len(body)))[0].payload) for _ in range(count)]

    assert [64 << 10] * 32 + [1 << 10] * 968 == kept(ORIGIN, 1_000)
    assert [64 << 10] == kept(ORIGIN._replace(tenant="other"), 1)
    [small] = entries(letters.of_request(ORIGIN, INVALID_JSON, "", b"small", 5))
    assert (b"small", 5) == (small.payload, small.payload_size_bytes)
    assert Budget(10_000 - 1_001, (64 << 20) - (2 << 20) - (968 << 10) - 5) == letters.budget("acme", NOW)
    assert [64 << 10] == kept(ORIGIN._replace(received_time_unix_nano=NOW + MINUTE_NS), 1)
    letters = DeadLetters(Caps(10_000, 64 << 20, 100_000), 1 << 20)
    assert [64 << 10, 64 << 10, 1 << 10] == kept(ORIGIN, 3)
