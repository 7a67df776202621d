"""A request that is sent again to the same process, and what its messages say for the writer."""

import tracemalloc
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_NATIVE_JSON, PAYLOAD_FORM_OTLP_LOGS
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.fakes.receiving import NOW_UNIX_NANO, Receivers, native_record, receivers
from support.records import flat

import adapters.native.request
import adapters.otlp.logs
from adapters.codec.json_parts import JsonPartsCount
from adapters.errors import IDEMPOTENCY_KEY_REUSED, RequestRefused
from adapters.fingerprint import read_fingerprint
from adapters.record import SOURCE_NATIVE, SOURCE_OTLP, Adapted
from collector.broker.contract import BrokerDown
from collector.ingest.pipeline import Outcome
from collector.ingest.reading import Input
from collector.ingest.request_fingerprints import HASHED, RequestFingerprints
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED, RecognizedBy
from collector.tenancy.scopes import Scope

WINDOW_S = 900
ACME = Caller("acme", Scope.INGEST, UNLIMITED, "k1")
OTHER = Caller("other", Scope.INGEST, UNLIMITED, "k2")
LOGS = Input(adapters.otlp.logs.adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
FINE_NS = NOW_UNIX_NANO // 1_000_000 * 1_000_000 + 123_456


def logs(*times: int, padding: int = 0) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for time in times:
        scope.log_records.add(time_unix_nano=time).body.string_value = "x" * padding
    return request.SerializeToString()


def gateway(
    hashed: Collection[str] = tuple(HASHED), window_s: int = WINDOW_S, answers_max: int = 100, **changes: Any
) -> Receivers:
    return receivers(fingerprints=RequestFingerprints(window_s, hashed, answers_max), **changes)


async def ingest(made: Receivers, body: bytes, key: bytes = b"", caller: Caller = ACME, input_: Input = LOGS) -> Outcome:
    return await made.pipeline.ingest(input_, body, caller, lambda _size: None, key)


def prints(made: Receivers) -> list[bytes]:
    """What each message says, and what the broker places it by."""
    for message in made.producer.messages:
        print_ = read_fingerprint(message.payload)
        assert message.fingerprint == (print_.value if print_ else b"")
    return [message.fingerprint for message in made.producer.messages]


async def test_what_is_recognized_without_a_key() -> None:
    """Logs with fine times; not logs with coarse or no times, one of them suffices; and no route that is not to be hashed."""
    for times, recognized in (
        ([FINE_NS], True),
        ([FINE_NS, FINE_NS + 1], True),
        ([FINE_NS, NOW_UNIX_NANO], False),
        ([FINE_NS // 1_000_000 * 1_000_000], False),
        ([0], False),
    ):
        made = gateway(answers_max=0)
        for _ in range(2):
            await ingest(made, logs(*times))
        first, second = prints(made)
        assert recognized == bool(first)
        assert first == second
    made = gateway(hashed=[])
    await ingest(made, logs(FINE_NS))
    assert [b""] == prints(made)


@pytest.mark.parametrize(
    ("of_plan", "of_route", "times", "key", "recognized"),
    [
        ("off", True, FINE_NS, b"", False),
        ("off", True, FINE_NS, b"a", False),
        ("key", True, FINE_NS, b"", False),
        ("key", True, FINE_NS, b"a", True),
        ("body", False, FINE_NS, b"", True),
        ("body", False, 0, b"", False),
        ("by_route", True, FINE_NS, b"", True),
        ("by_route", False, FINE_NS, b"", False),
    ],
)
async def test_a_plan_has_its_own_setting(
    of_plan: RecognizedBy, of_route: bool, times: int, key: bytes, recognized: bool
) -> None:
    """It comes before the route's. Logs with coarse times are recognized by nothing but a key in any case."""
    made = gateway(hashed=["logs"] if of_route else [], answers_max=0)
    await ingest(made, logs(times), key, ACME._replace(plan=replace(UNLIMITED, repetitions=of_plan)))
    assert recognized == bool(*prints(made))


async def test_no_plan_recognizes_anything_without_a_window() -> None:
    """The window is the writers', so no plan has one of its own."""
    made = gateway(window_s=0)
    await ingest(made, logs(FINE_NS), b"a", ACME._replace(plan=replace(UNLIMITED, repetitions="body")))
    assert [b""] == prints(made)


async def test_a_key_counts_on_every_route() -> None:
    """The native API too, whose equal records may be meant twice."""
    native = Input(adapters.native.request.adapt, JsonPartsCount, SOURCE_NATIVE, "/api/v1/telemetry", PAYLOAD_FORM_NATIVE_JSON)
    made = gateway(hashed=[], answers_max=0)
    for key in (b"a", b"a", b"b"):
        await ingest(made, native_record(), key, input_=native)
    first, second, third = prints(made)
    assert first == second != third
    assert all((first, third))


async def test_a_repetition_is_answered_as_the_first_was() -> None:
    """The same batch id and counts, and nothing is appended. Another tenant's is another request, and so is another body."""
    made = gateway()
    first = await ingest(made, logs(FINE_NS, FINE_NS + 1))
    again = await ingest(made, logs(FINE_NS, FINE_NS + 1))
    assert first.batch_id == again.batch_id
    assert 2 == again.adapted.accepted_count()
    assert 1 == len(made.producer.messages)
    assert first.batch_id != (await ingest(made, logs(FINE_NS, FINE_NS + 1), caller=OTHER)).batch_id
    assert first.batch_id != (await ingest(made, logs(FINE_NS))).batch_id
    assert 3 == len(made.producer.messages)


async def test_a_request_that_failed_is_not_answered_from_memory() -> None:
    """It may not have been kept: its repetition is appended, under the same fingerprint."""
    made = gateway()
    made.producer.error = BrokerDown("away")
    with pytest.raises(BrokerDown):
        await ingest(made, logs(FINE_NS))
    made.producer.error = None
    await ingest(made, logs(FINE_NS))
    assert 1 == len(made.producer.messages)


async def test_after_the_window_it_is_another_request() -> None:
    """Without a window nothing is recognized, with a key or without."""
    now = [NOW_UNIX_NANO]
    made = receivers(fingerprints=RequestFingerprints(WINDOW_S, HASHED, 100), now_unix_nano=lambda: now[0])
    await ingest(made, logs(FINE_NS), b"key")
    now[0] += (WINDOW_S + 1) * 10**9
    await ingest(made, logs(FINE_NS), b"key")
    assert 2 == len(made.producer.messages)
    off = gateway(window_s=0)
    for _ in range(2):
        await ingest(off, logs(FINE_NS), b"key")
    assert [b"", b""] == prints(off)


async def test_what_is_repeated_for_long_is_appended_every_half_window() -> None:
    """A writer must see a copy within each window, or it takes a later one for another request. All get the first answer."""
    now = [NOW_UNIX_NANO]
    made = receivers(fingerprints=RequestFingerprints(WINDOW_S, HASHED, 100), now_unix_nano=lambda: now[0])
    first = await ingest(made, logs(FINE_NS, FINE_NS + 1))
    appended_s = []
    for after_s in range(100, 3 * WINDOW_S, 100):
        now[0] = NOW_UNIX_NANO + after_s * 10**9
        before = len(made.producer.messages)
        again = await ingest(made, logs(FINE_NS, FINE_NS + 1))
        assert (first.batch_id, 2) == (again.batch_id, again.adapted.accepted_count())
        appended_s += [after_s] * (len(made.producer.messages) - before)
    assert [500, 1000, 1500, 2000, 2500] == appended_s
    assert 1 == len(set(prints(made)))


async def test_a_key_with_another_body_is_refused() -> None:
    """Another tenant may use the same key."""
    made = gateway()
    await ingest(made, logs(FINE_NS), b"key")
    with pytest.raises(RequestRefused, match="was used for another body") as refused:
        await ingest(made, logs(FINE_NS + 1), b"key")
    assert IDEMPOTENCY_KEY_REUSED == refused.value.reason
    await ingest(made, logs(FINE_NS + 1), b"key", OTHER)
    assert 2 == len(made.producer.messages)


async def test_long_keys_take_no_more_memory() -> None:
    """A sender may fill all its headers with each key: of 200 such keys, 12 MB, less than a hundredth is remembered. They are
    compared as a whole."""
    fingerprints = RequestFingerprints(WINDOW_S, HASHED, 1000)
    keys = [b"%060000d" % number for number in range(200)]

    def use(key: bytes, body: bytes) -> None:
        fingerprints.of(ACME, "/v1/logs", body, key, Adapted(), False, NOW_UNIX_NANO)

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for key in keys:
            use(key, b"body")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 120_000
    for key in keys:
        with pytest.raises(RequestRefused, match="was used for another body"):
            use(key, b"another")


async def test_each_message_of_a_large_request_has_its_own_fingerprint() -> None:
    """It is at its end, with its part's number, and the same at the next attempt. The receipt is in the last."""
    made = gateway(answers_max=0, message_bytes_max=1 << 14)
    body = logs(*range(FINE_NS, FINE_NS + 40), padding=1000)
    for _ in range(2):
        await ingest(made, body)
    found = prints(made)
    half = len(found) // 2
    assert half >= 3
    assert found[:half] == found[half:]
    assert half == len(set(found))
    for part, message in enumerate(made.producer.messages[:half]):
        last = flat(message.payload).records[-1]
        assert (part, 0) == (last.batch_part, last.item_count)
        assert (part == half - 1) == last.HasField("receipt")


async def test_other_rejections_are_another_request() -> None:
    """An item in the future at the first attempt may be accepted at the second: it must not be left out as stored."""
    now = [NOW_UNIX_NANO]
    made = receivers(fingerprints=RequestFingerprints(WINDOW_S, HASHED, 100), now_unix_nano=lambda: now[0])
    body = logs(FINE_NS, FINE_NS + 605 * 10**9)
    assert 1 == (await ingest(made, body)).adapted.rejected_count()
    assert 1 == (await ingest(made, body)).adapted.rejected_count()
    now[0] += 60 * 10**9
    assert 2 == (await ingest(made, body)).adapted.accepted_count()
    first, second, third = prints(made)
    assert first == second != third
