"""adapters/native against its twin, and what the twin can't say: JSON that isn't, messages, limits."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from support.examples import examples
from support.limits import LOW
from support.records import encoded, flat, unpadded
from support.references.native import nanoseconds, reference
from support.strategies.native import NOW_TEXT, records

from adapters import errors, repairs
from adapters.codec.json_reader import SLICE_BYTES
from adapters.codec.rfc3339 import BEFORE, BEYOND, INVALID, parse_time
from adapters.errors import Malformed, RequestRefused
from adapters.native import request as native
from adapters.record import LOGS, METRICS, SOURCE_NATIVE, TYPE_LOG, TYPE_METRIC, TYPE_SLO, Adapted, Header
from collector.ingest.validate import LimitRules, Limits

NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z
LIMITS = LOW
BATCH_ID = b"0123456789abcdef"
HEADER: dict[str, Any] = {"tenant_id": "acme", "received_time_unix_nano": NOW, "batch_id": BATCH_ID}
METRIC: dict[str, Any] = {"service_id": "payment-api", "metric_name": "cpu", "value": 87.3, "timestamp": NOW_TEXT}
LOG: dict[str, Any] = {"service_id": "payment-api", "type": "log", "body": "hello", "timestamp": NOW_TEXT}

# JSON, which no parser here reads.
DEEP_ARRAY = "[" * 1_100 + "1" + "]" * 1_100
DEEP_OBJECT = '{"a":' * 1_100 + "1" + "}" * 1_100


def header() -> Header:
    return Header("acme", SOURCE_NATIVE, NOW, BATCH_ID)


def adapt(body: bytes, limits: Limits = LIMITS) -> Adapted:
    return native.adapt(body, header(), LimitRules(limits, NOW), 1 << 20)


def adapt_batch(body: bytes, message_bytes_max: int = 1 << 20, batch_items_max: int = 10_000) -> Adapted:
    return native.adapt_batch(body, header(), LimitRules(LIMITS, NOW), message_bytes_max, batch_items_max)


def adapt_one(record: Any) -> Adapted:
    return adapt(json.dumps(record).encode())


def records_of(adapted: Adapted) -> list[TelemetryRecordV1]:
    return [record for part in adapted.parts for record in flat(part.payload).records]


def refusal(adapted: Adapted) -> tuple[str, str]:
    """The one rejection's reason and message."""
    [rejection] = adapted.rejections
    assert 0 == adapted.accepted_count()
    return errors.REASON[rejection.reason].name, rejection.message


def attributes_of(item: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in item.attributes}


def check(documents: list[Any], body: bytes) -> None:
    """The adapter and its twin agree on every record, to the bit."""
    metrics, logs, rejections = reference(documents, LIMITS, NOW, HEADER)
    adapted = adapt_batch(body)
    assert rejections == [(rejection.index, rejection.type, rejection.reason) for rejection in adapted.rejections]
    assert adapted.accepted_count() + adapted.rejected_count() == len(documents)
    assert adapted.accepted_count() == sum(part.item_count for part in adapted.parts)
    for part_number, expected in enumerate([batch for batch in (metrics, logs) if batch.records]):
        for record in expected.records:
            record.batch_part = part_number
        payload = adapted.parts[part_number].payload
        assert expected.SerializeToString() == flat(payload).SerializeToString()
        assert len(encoded(expected)) == len(unpadded(payload))
    assert [signal for signal, batch in ((METRICS, metrics), (LOGS, logs)) if batch.records] == [
        part.signal for part in adapted.parts
    ]


@examples(400)
@given(st.lists(records(), max_size=6), st.booleans())
def test_any_batch_is_adapted_as_the_twin_does(documents: list[Any], ascii_only: bool) -> None:
    """Six types, every field right, wrong or missing: the same records, rejections and bytes."""
    check(documents, json.dumps(documents, ensure_ascii=ascii_only).encode())


@examples(150)
@given(st.lists(records(), min_size=1, max_size=4), st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_a_batch_with_nan_is_adapted_as_the_twin_does(documents: list[Any], odd: float, data: st.DataObject) -> None:
    """Read the second way, everything means what it means the first way; and what is not finite is refused by itself."""
    target = data.draw(st.sampled_from(documents))
    place = data.draw(st.sampled_from(["value", "attributes", "nested", "unknown", "body"]))
    if isinstance(target, dict):
        if place == "attributes" or place == "nested":
            target["attributes"] = {"load": odd if place == "attributes" else [1, {"x": odd}]}
        else:
            target[place] = odd
    check(documents, json.dumps(documents, ensure_ascii=False).encode())


@examples(100)
@given(records())
def test_one_record_is_adapted_as_a_batch_of_one(document: Any) -> None:
    """Both routes take a record alike."""
    body = json.dumps(document).encode()
    alone, batch = adapt(body), adapt_batch(b"[" + body + b"]")
    assert [part.payload for part in alone.parts] == [part.payload for part in batch.parts]
    assert [(r.reason, r.message) for r in alone.rejections] == [(r.reason, r.message) for r in batch.rejections]


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"service_id": None}, "missing_service_id", "service_id is required"),
        ({"service_id": ""}, "missing_service_id", "service_id is required"),
        ({"service_id": 5}, "invalid_service_id", "service_id must be a string; got number 5"),
        ({"service_id": "s" * 101}, "name_too_long", "a name is longer than 100 bytes"),
        (
            {"type": "Metric"},
            "invalid_type",
            'type must be one of metric, log, trace, event, profile, slo; got string "Metric"',
        ),
        ({"type": 1}, "invalid_type", "type must be one of metric, log, trace, event, profile, slo; got number 1"),
        ({"metric_name": ""}, "missing_metric_name", "metric_name is required"),
        ({"metric_name": ["a"]}, "invalid_metric_name", "metric_name must be a string; got array of 1"),
        ({"value": None}, "missing_value", "value is required"),
        ({"value": "87"}, "invalid_value", 'value must be a finite float64; got string "87"'),
        ({"value": True}, "invalid_value", "value must be a finite float64; got boolean true"),
        ({"value": {}}, "invalid_value", "value must be a finite float64; got object"),
        ({"value": math.nan}, "invalid_value", "value must be a finite float64; got NaN"),
        ({"value": math.inf}, "invalid_value", "value must be a finite float64; got Infinity"),
        ({"value": -math.inf}, "invalid_value", "value must be a finite float64; got -Infinity"),
        ({"value": "\x1b[31m\n\x7fé" + "x" * 50}, "invalid_value", None),
        ({"body": 5}, "invalid_body", "body must be a string; got number 5"),
        ({"type": "log"}, "missing_body", "body is required"),
        ({"type": "event"}, "missing_body", "body is required"),
        ({"trace_id": 5}, "invalid_trace_id", "trace_id must be a string; got number 5"),
        ({"timestamp": None}, "missing_timestamp", "timestamp is required"),
        ({"timestamp": 1_775_822_400}, "invalid_timestamp", "timestamp must be an RFC 3339 string; got number 1775822400"),
        ({"timestamp": "yesterday"}, "invalid_timestamp", 'timestamp must be RFC 3339; got string "yesterday"'),
        ({"timestamp": "2026-04-09T11:59:59Z"}, "timestamp_too_old", "Timestamp is more than 24h in the past"),
        ({"timestamp": "1066-10-14T00:00:00Z"}, "timestamp_too_old", "Timestamp is more than 24h in the past"),
        ({"timestamp": "2026-04-10T12:10:01Z"}, "timestamp_in_future", "Timestamp is more than 10m in the future"),
        ({"timestamp": "9999-12-31T23:59:59Z"}, "timestamp_in_future", "Timestamp is more than 10m in the future"),
        ({"attributes": "x"}, "invalid_attributes", 'attributes must be an object; got string "x"'),
        ({"attributes": {"a": math.nan}}, "invalid_attributes", 'attribute "a" must be finite; got NaN'),
        ({"attributes": {"a": [{"b": -math.inf}]}}, "invalid_attributes", 'attribute "a" must be finite; got -Infinity'),
        ({"attributes": {"k" * 101: 1}}, "attribute_key_too_long", "an attribute's key is longer than 100 bytes"),
        ({"attributes": {"k": "v" * 121}}, "attribute_value_too_long", "an attribute's value is longer than 120 bytes"),
    ],
)
def test_each_wrong_field_is_refused_by_name(change: dict[str, Any], reason: str, message: str | None) -> None:
    """The reason, and words that say what was got."""
    assert (reason, message) == (refusal(adapt_one(METRIC | change))[0], message and refusal(adapt_one(METRIC | change))[1])


def test_what_is_shown_is_short_and_printable() -> None:
    """Text from a sender can't forge a line or a colour."""
    _, message = refusal(adapt_one(METRIC | {"value": "\x1b[31m\n\x7fé" + "x" * 50}))
    assert message.isascii()
    assert message.isprintable()
    assert message.endswith("... of 58 characters")
    assert len(message) < 140


def test_the_first_fault_in_the_tables_order_is_reported() -> None:
    """service_id before type before metric_name before value before body before trace_id before timestamp before attributes."""
    names = ["service_id", "type", "metric_name", "value", "body", "trace_id", "timestamp", "attributes"]
    wrong: dict[str, Any] = {name: [] for name in names}
    right = METRIC | {"type": "metric", "body": "b", "trace_id": "t", "attributes": {}}
    told = []
    for name in names:
        told.append(refusal(adapt_one(wrong))[0])
        wrong[name] = right[name]
    assert [f"invalid_{name}" for name in names] == told


@pytest.mark.parametrize("token", ["1e999", "-1e999", "1e99999999999999999999", "1" * 400, "-" + "9" * 309, "1.5e400"])
def test_numbers_beyond_float64_are_refused_by_name(token: str) -> None:
    """The message has the token, shortened; the neighbours are kept."""
    good = json.dumps(METRIC)
    adapted = adapt_batch(f"[{good},{good.replace('87.3', token)},{good}]".encode())
    shown = token if len(token) <= 40 else f"{token[:40]}... of {len(token)} characters"
    assert [(1, f"value must be a finite float64; got {shown}")] == [(r.index, r.message) for r in adapted.rejections]
    assert (2, {(TYPE_METRIC, errors.INVALID_VALUE): 1}) == (adapted.accepted_count(), adapted.rejected)


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("9007199254740993", 9007199254740992.0),
        ("18446744073709551615", 18446744073709551616.0),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775809", -9223372036854775808.0),
        ("1e-999", 0.0),
        ("1" * 300, float("1" * 300)),
        ("0.1", 0.1),
        ("1E+2", 100.0),
        ("-0.0", -0.0),
    ],
)
def test_numbers_become_the_nearest_double(token: str, value: float) -> None:
    """Read alone, and read the second way beside a NaN."""
    good = json.dumps(METRIC).replace("87.3", token)
    for body in (f"[{good}]", f"[{good},{json.dumps(METRIC).replace('87.3', 'NaN')}]"):
        [record] = records_of(adapt_batch(body.encode()))
        made = record.metrics[0].gauge.data_points[0].as_double
        assert (value, math.copysign(1, value)) == (made, math.copysign(1, made))


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("9" * 5_000, "9" * 5_000),
        ("1e16", "1e+16"),
        ("1e20", "1e+20"),
        ("123456789012345678901.0", "1.2345678901234568e+20"),
        ("1.0", "1.0"),
        ("true", "true"),
        ("null", ""),
        ('"é"', "é"),
        ('["é", 1.50, {"b": null, "a": 1e16}]', '["é",1.5,{"b":null,"a":1e+16}]'),
        ('[18446744073709551616, {"a": -9223372036854775809}]', '[18446744073709551616,{"a":-9223372036854775809}]'),
        ("[1e20, 9223372036854775807, 18446744073709551616]", "[1e+20,9223372036854775807,18446744073709551616]"),
        (f"[1e20, {'9' * 5_000}]", f'[1e+20,"{"9" * 5_000}"]'),
        ("{}", "{}"),
    ],
    ids=lambda value: value[:24],
)
def test_attributes_in_normal_form(token: str, text: str) -> None:
    """Their form is that of the .proto, read either way. Integers of any size keep their digits."""
    good = json.dumps(METRIC | {"attributes": {"a": "TOKEN"}}).replace('"TOKEN"', token)
    for body in (f"[{good}]", f"[{good},NaN]", f'[{{"a":1}},{good}]', f"{' ' * (2 << 20)}[{good}]"):
        adapted = native.adapt_batch(body.encode(), header(), LimitRules(_wide(), NOW), 1 << 20, 10_000)
        [record] = records_of(adapted)
        assert {"a": text} == attributes_of(record.metrics[0].gauge.data_points[0])


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "cannot decode JSON: 0 bytes, "),
        (b"  ", "cannot decode JSON: 2 bytes, "),
        (b"{", "cannot decode JSON: 1 bytes, "),
        (b'{"a": nan}', "at character 6"),
        (b'{"value": NaN, }', "at character "),
        (b"[+Infinity]", "at character 1"),
        (b"[-NaN]", "at character "),
        (b"[NaN", "at character 4"),
        (b"[NaN] x", "at character 6"),
        (b"[NaN, 01]", "at character "),
        (b"[NaN, 'a']", "at character 6"),
        (b'[NaN, "\x01"]', "at character 7"),
        (b'{"a": 1,}', "at character "),
        (b"[1] [2]", "at character 4"),
        (b"// x\n{}", "at character 0"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 at byte 0"),
        (b"[" * 60_000, "at character 1025"),
        (b'{"a":' * 60_000, "at character "),
        (b"[" * 60_000 + b"NaN", "at character 1025"),
        (b"[NaN, " + b"[" * 60_000, "nested too deep"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_not_json_is_refused_with_its_place(body: bytes, fault: str) -> None:
    """RFC 8259, to the letter, within a moment; on both routes."""
    for route in (adapt, adapt_batch):
        started = time.process_time()
        with pytest.raises(Malformed) as refused:
            route(body)
        assert time.process_time() - started < 1
        assert (errors.INVALID_JSON, True) == (refused.value.reason, fault in refused.value.message)
        assert f"{len(body)} bytes" in refused.value.message


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"[" * 1_000_000, "nested too deep at character 1026"),
        (b'{"a":' * 500_000, "a batch must be a JSON array of records; got object"),
        (b"[NaN, " + b"[" * 900_000, "nested too deep at character 1031"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_million_brackets_are_refused(body: bytes, fault: str) -> None:
    """They are more than any record may have: no parser sees them."""
    [rejection] = adapt(body).rejections
    assert errors.RECORD_TOO_LARGE == rejection.reason
    with pytest.raises(RequestRefused, match=fault):
        adapt_batch(body)


@examples(300)
@given(
    st.one_of(
        st.binary(max_size=20),
        st.text(max_size=20).map(str.encode),
        st.text('[]{}",:0123eE.-NaInfity\\u d8', max_size=24).map(str.encode),
    )
)
@example(b'[NaN,"\\ud800\\udc00"]')
@example(b"[1e999,1" + b"0" * 400 + b"]")
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Never an exception of another kind."""
    for route in (adapt, adapt_batch):
        try:
            adapted = route(body)
        except RequestRefused:
            continue
        assert adapted.accepted_count() == 0
        assert adapted.rejected_count() == len(adapted.rejections)


@pytest.mark.parametrize("token", ["1" * 1_000_000, "-" + "1" * 1_000_000, "0." + "1" * 1_000_000, "1e" + "9" * 1_000_000])
def test_a_million_digits_are_quick(token: str) -> None:
    """No quadratic parsing, whether the number is finite or not."""
    body = json.dumps(METRIC).replace("87.3", token).encode()
    started = time.process_time()
    adapted = adapt(body)
    assert time.process_time() - started < 1
    assert 1 == adapted.accepted_count() + adapted.rejected_count()
    assert all(len(rejection.message) < 120 for rejection in adapted.rejections)


@pytest.mark.parametrize("token", ["NaN", "-Infinity", "1e999", "1" * 400, "1" * 25])
@pytest.mark.parametrize(
    "place", ['"value": N', '"attributes": {"a": N}', '"attributes": {"a": [1, {"x": N, "y": "N"}]}', '"unread": [N]']
)
def test_a_large_record_means_what_a_small_one_does(place: str, token: str) -> None:
    """Verdict, words and values are the same, whatever number is in it, and wherever."""
    small = f"{json.dumps(METRIC)[:-1]}, {place.replace('N', token)}}}"
    assert _fate(small) == _fate(_padded(small))


def test_numbers_of_a_large_record_cost_no_neighbour() -> None:
    """They reject their record alone, which is read again; what is no JSON is refused beside them."""
    good = json.dumps(METRIC)
    bad = _padded(good.replace("87.3", "NaN"))
    adapted = adapt_batch(f"[{good},{bad},{good}]".encode())
    assert (2, [1]) == (adapted.accepted_count(), [rejection.index for rejection in adapted.rejections])
    assert "value must be a finite float64; got NaN" == adapted.rejections[0].message
    with pytest.raises(Malformed):
        adapt_batch(f"[{good},{bad[:-1]},}}]".encode())


def _padded(record: str) -> str:
    """The same record, too large for the parser that names numbers."""
    padding = "p" * (native.NAMED_NUMBERS_BYTES_MAX + 1)
    return f'{record[:-1]}, "padding": ["{padding}", "NaN, -Infinity, 1e999"]}}'


def _fate(record: str) -> tuple[list[tuple[int, str]], list[Any]]:
    """Why a record is rejected, and what is stored of it: its point's value and attributes."""
    adapted = native.adapt(record.encode(), header(), LimitRules(LIMITS, NOW), 4 << 20)
    points = [
        (point.as_double, attributes_of(point))
        for stored in records_of(adapted)
        for metric in stored.metrics
        for point in metric.gauge.data_points
    ]
    return [(one.reason, one.message) for one in adapted.rejections], points


@pytest.mark.parametrize("number", ["0" * 20 + "1", "1e+-999", "1." + "0" * 400 + ".", "-" + "0" * 30])
def test_what_is_no_number_is_refused_in_a_large_record(number: str) -> None:
    """It is refused as in a small record, beside a NaN, for which both are read by other means than most."""
    small = f'{json.dumps(METRIC)[:-1]}, "unread": [{number}, NaN]}}'
    for record in (small, _padded(small)):
        with pytest.raises(Malformed):
            native.adapt(record.encode(), header(), LimitRules(LIMITS, NOW), 4 << 20)


def test_deep_numbers_of_a_large_record_are_found() -> None:
    """They are found as deep as a parser reads."""
    record = f'{json.dumps(METRIC)[:-1]}, "unread": {"[" * 1_000}NaN{"]" * 1_000}}}'
    assert ([], [(87.3, {})]) == _fate(_padded(record))


@pytest.mark.parametrize("padding", [0, 2 << 20], ids=["small", "large"])
@pytest.mark.parametrize(
    "value",
    [DEEP_ARRAY, DEEP_OBJECT, DEEP_ARRAY.replace("1", "1e999"), DEEP_ARRAY.replace("1", "NaN,-Infinity")],
    ids=["array", "object", "number", "constants"],
)
def test_a_record_that_no_parser_reads_is_rejected_alone(value: str, padding: int) -> None:
    """One that is nested deeper than parsers go, or has such a value under a name that is not read, costs nobody else's."""
    good = json.dumps(METRIC)
    deep = json.dumps(METRIC | {"attributes": {"a": "DEEP"}}).replace('"DEEP"', value)
    unread = json.dumps(METRIC | {"unread": "DEEP"}).replace('"DEEP"', value)
    adapted = adapt_batch(f"{' ' * padding}[{good},{deep},{good},{value},{unread}]".encode())
    wrong = errors.INVALID_RECORD if value[0] == "[" else errors.MISSING_SERVICE_ID
    assert [(1, errors.NESTED_TOO_DEEP), (3, wrong)] == [(one.index, one.reason) for one in adapted.rejections]
    assert 3 == adapted.accepted_count()
    assert errors.NESTED_TOO_DEEP == adapt(deep.encode()).rejections[0].reason
    assert 1 == adapt(unread.encode()).accepted_count()


@pytest.mark.parametrize("damage", ["1,]", "01]", '"\\x"]', "{]"])
def test_what_is_not_json_deep_inside_is_refused(damage: str) -> None:
    """What is not read for its depth is checked all the same."""
    with pytest.raises(Malformed):
        adapt_batch(f"[{json.dumps(METRIC)},{'[' * 1_100}{damage}{']' * 1_100}]".encode())


def test_a_large_record_with_a_number_beyond_a_double_is_rejected_alone() -> None:
    """It is too large for the parser that names such numbers."""
    good = json.dumps(METRIC)
    large = _padded(good.replace("87.3", "1e999"))
    [rejection] = adapt_batch(f"[{good},{large},{good}]".encode()).rejections
    assert (1, errors.INVALID_VALUE) == (rejection.index, rejection.reason)
    assert "1e999" in rejection.message


def test_attributes_nest_64_deep() -> None:
    """Deeper ones are rejected."""
    for depth, accepted in ((64, 1), (65, 0), (900, 0), (100_000, 0)):
        adapted = adapt(_nested(depth), _wide())
        assert (accepted, 1 - accepted) == (adapted.accepted_count(), adapted.rejected_count())
        assert accepted or ("nested_too_deep", "an attribute or a body is nested more than 64 deep") == refusal(adapted)


def _nested(depth: int) -> bytes:
    value = "[" * depth + "]" * depth
    return json.dumps(METRIC | {"attributes": {"a": "DEEP"}}).replace('"DEEP"', value).encode()


def _wide() -> Limits:
    return Limits(
        past_max_s=86_400,
        future_max_s=600,
        attributes_max=128,
        attribute_key_bytes_max=1024,
        attribute_value_bytes_max=262_144,
        name_bytes_max=1024,
    )


def test_the_last_of_a_repeated_name_wins() -> None:
    """This holds in the record and in its attributes."""
    body = json.dumps(METRIC)[:-1] + ', "value": 1, "value": 2, "attributes": {"a": 1, "b": 2, "a": 3}}'
    [record] = records_of(adapt(body.encode()))
    [point] = record.metrics[0].gauge.data_points
    assert (2.0, {"a": "3", "b": "2"}) == (point.as_double, attributes_of(point))


def test_the_example_of_the_api() -> None:
    """Its users know it in this form."""
    body = b"""{"service_id": "payment-api", "type": "metric", "metric_name": "cpu_usage_percent", "value": 87.3,
     "timestamp": "2026-04-10T12:00:00Z", "attributes": {"region": "us-east-1", "env": "production"}}"""
    [record] = records_of(adapt(body))
    [point] = record.metrics[0].gauge.data_points
    assert ("payment-api", TYPE_METRIC, "acme", NOW) == (
        record.service_id,
        record.type,
        record.tenant_id,
        record.received_time_unix_nano,
    )
    assert {"service.name": "payment-api"} == attributes_of(record.resource)
    assert ("cpu_usage_percent", 87.3, NOW) == (record.metrics[0].name, point.as_double, point.time_unix_nano)
    assert {"region": "us-east-1", "env": "production"} == attributes_of(point)


@pytest.mark.parametrize("type_", ["metric", "trace", "profile", "slo"])
def test_a_trace_id_becomes_an_exemplar(type_: str) -> None:
    """It has the point's time and value. What is no trace id becomes an attribute. Zeros are none."""
    [record] = records_of(adapt_one(METRIC | {"type": type_, "trace_id": "AB" * 16, "body": "b"}))
    [point] = record.metrics[0].gauge.data_points
    [exemplar] = point.exemplars
    assert (b"\xab" * 16, 87.3, NOW) == (exemplar.trace_id, exemplar.as_double, exemplar.time_unix_nano)
    assert {"infrasage.body": "b"} == attributes_of(point)
    for odd, kept in (
        *((zeros, {}) for zeros in ("0" * 32, "0" * 16, "0")),
        *((odd, {"infrasage.trace_id": odd}) for odd in ("ab", "g" * 32, " " + "a" * 31)),
    ):
        [record] = records_of(adapt_one(METRIC | {"type": type_, "trace_id": odd}))
        [point] = record.metrics[0].gauge.data_points
        assert ([], kept) == (list(point.exemplars), attributes_of(point))


@pytest.mark.parametrize(
    ("change", "event_name", "attributes"),
    [
        ({"type": "log"}, "", {}),
        ({"type": "log", "metric_name": "m", "value": 1}, "", {"infrasage.metric_name": "m", "infrasage.value": "1.0"}),
        ({"type": "event"}, "event", {}),
        ({"type": "event", "metric_name": "deploy", "value": 0.5}, "deploy", {"infrasage.value": "0.5"}),
        ({"type": "event", "attributes": {"event.name": "login"}}, "login", {"event.name": "login"}),
        ({"type": "event", "attributes": {"event.name": 5}}, "event", {"event.name": "5"}),
    ],
)
def test_logs_and_events(change: dict[str, Any], event_name: str, attributes: dict[str, str]) -> None:
    """An event has a name; what a log record has no place for is an attribute."""
    [record] = records_of(adapt_one(LOG | change | {"trace_id": "cd" * 16}))
    [log] = record.log_records
    assert ("hello", event_name, b"\xcd" * 16) == (log.body.string_value, log.event_name, log.trace_id)
    assert (attributes, "", 0) == (attributes_of(log), log.severity_text, log.severity_number)


def test_severity_comes_from_attributes() -> None:
    """severity_text, then severity, then level; known names have a number."""
    for attributes, text, number in (
        ({"level": "WARN"}, "WARN", 13),
        ({"level": "info", "severity": "Error"}, "Error", 17),
        ({"severity_text": "odd", "level": "info"}, "odd", 0),
        ({"level": 5}, "", 0),
    ):
        [record] = records_of(adapt_one(LOG | {"attributes": attributes}))
        assert (text, number) == (record.log_records[0].severity_text, record.log_records[0].severity_number)


def test_groups_share_a_record() -> None:
    """Records of one service and type are one, metrics of one name are one; metrics come before logs."""
    batch = [METRIC, LOG, METRIC | {"service_id": "b"}, METRIC | {"metric_name": "mem"}, METRIC | {"type": "slo"}, METRIC, LOG]
    adapted = adapt_batch(json.dumps(batch).encode())
    shape = [
        (
            record.service_id,
            record.type,
            record.batch_part,
            [(metric.name, len(metric.gauge.data_points)) for metric in record.metrics],
        )
        for record in records_of(adapted)
    ]
    assert [
        ("payment-api", TYPE_METRIC, 0, [("cpu", 2), ("mem", 1)]),
        ("b", TYPE_METRIC, 0, [("cpu", 1)]),
        ("payment-api", TYPE_SLO, 0, [("cpu", 1)]),
        ("payment-api", TYPE_LOG, 1, []),
    ] == shape
    assert [METRICS, LOGS] == [part.signal for part in adapted.parts]
    assert [0, 4, 2, 0, 0, 0, 1] == adapted.accepted


def test_bad_records_do_not_take_good_ones_down() -> None:
    """Each failure has its index, its reason and its message, as in the API's example."""
    batch: list[Any] = [METRIC] * 100
    batch[45] = METRIC | {"timestamp": "2026-04-09T11:59:59Z"}
    batch[99] = METRIC | {"service_id": None}
    batch[7] = 5
    adapted = adapt_batch(json.dumps(batch).encode())
    assert [
        (7, 0, "invalid_record", "a record must be a JSON object; got number 5"),
        (45, TYPE_METRIC, "timestamp_too_old", "Timestamp is more than 24h in the past"),
        (99, TYPE_METRIC, "missing_service_id", "service_id is required"),
    ] == [(r.index, r.type, errors.REASON[r.reason].name, r.message) for r in adapted.rejections]
    assert (97, 3) == (adapted.accepted_count(), adapted.rejected_count())


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (b"{}", errors.INVALID_RECORD, "a batch must be a JSON array of records; got object"),
        (
            b'{"service_id": "s"}',
            errors.INVALID_RECORD,
            "a batch must be a JSON array of records; got object: send a record by itself to /api/v1/telemetry",
        ),
        (b"null", errors.INVALID_RECORD, "a batch must be a JSON array of records; got null"),
        (b'"x"', errors.INVALID_RECORD, 'a batch must be a JSON array of records; got string "x"'),
        (b"[1,2,3]", errors.BATCH_TOO_LARGE, "a batch holds at most 2 records (http.batch_items_max); got 3"),
    ],
)
def test_batches_that_are_none_or_too_long(body: bytes, reason: int, message: str) -> None:
    """Refused as a whole, in words."""
    with pytest.raises(RequestRefused) as refused:
        adapt_batch(body, batch_items_max=2)
    assert (reason, message) == (refused.value.reason, refused.value.message)


def test_a_large_object_that_holds_the_array_is_refused_with_what_to_send() -> None:
    """It is refused as a small one is, though a body of that size is never parsed at once."""
    body = b'{"records": [' + b",".join([json.dumps(METRIC).encode()] * (2 * SLICE_BYTES // 100)) + b"]}"
    assert SLICE_BYTES < len(body)
    with pytest.raises(RequestRefused) as refused:
        adapt_batch(body)
    assert errors.INVALID_RECORD == refused.value.reason
    assert "a batch must be a JSON array of records; got object: send the array by itself" == refused.value.message


@pytest.mark.parametrize("size", [10, SLICE_BYTES])
@pytest.mark.parametrize("name", ["resourceLogs", "resource_logs"])
def test_otlp_of_any_size_is_referred_to_its_route(name: str, size: int) -> None:
    """Instead of a record, or of a batch."""
    body = f'{{ "{name}": [{"{}," * size}{{}}]}}'.encode()
    with pytest.raises(RequestRefused) as refused:
        adapt_batch(body)
    assert "a batch must be a JSON array of records; got object: this is OTLP, which is for /v1/logs" == refused.value.message
    assert adapt(body).rejections[0].message.endswith("; this is OTLP, which is for /v1/logs")


@pytest.mark.parametrize("bytes_max", [1 << 20, 64 << 20], ids=["bytes", "objects"])
def test_a_large_array_is_referred_to_the_route_of_batches(bytes_max: int) -> None:
    """It is refused for its bytes or for its objects, which are too many for one record."""
    body = b"[" + b"{}," * SLICE_BYTES + b"{}]"
    [rejection] = native.adapt(body, header(), LimitRules(LIMITS, NOW), bytes_max).rejections
    assert errors.RECORD_TOO_LARGE == rejection.reason
    assert "the body is too large for a record; an array of records is for /api/v1/telemetry/batch" == rejection.message


UNKNOWN: dict[str, Any] = {"severity": "error", "none": None, "tags": {"a": 1}}


@pytest.mark.parametrize("record", [METRIC, LOG])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({}, id="scanned"),
        pytest.param({"attributes": {"a": [1]}}, id="parsed"),
        pytest.param({f"m{number}": None for number in range(20)}, id="many"),
    ],
)
def test_unknown_members_are_reported(record: dict[str, Any], odd: dict[str, Any]) -> None:
    """The record is stored, alone or in a batch, and each member that it lost is a repair."""
    whole = {**record, **odd}
    batch = adapt_batch(json.dumps([whole, {**UNKNOWN, **whole}, {**whole, **UNKNOWN}]).encode())
    assert (3, {repairs.MEMBER_UNKNOWN: 4}) == (batch.accepted_count(), batch.repaired)
    alone = adapt_one({**whole, **UNKNOWN})
    assert (1, {repairs.MEMBER_UNKNOWN: 2}) == (alone.accepted_count(), alone.repaired)
    assert adapt_one(whole).parts[0].payload == alone.parts[0].payload
    repeated = adapt(json.dumps(whole).encode()[:-1] + b', "x": 1, "x": null, "y": 1, "y": 2}')
    assert (1, {repairs.MEMBER_UNKNOWN: 1}) == (repeated.accepted_count(), repeated.repaired)


def test_unknown_members_of_a_rejected_record_are_no_repairs() -> None:
    """It is kept as it was sent."""
    adapted = adapt_batch(json.dumps([METRIC | UNKNOWN | {"value": "x"}, LOG | UNKNOWN | {"body": "x" * (5 << 20)}]).encode())
    assert (2, None) == (adapted.rejected_count(), adapted.repaired)


@pytest.mark.parametrize(
    ("record", "reason", "message"),
    [
        (
            {"serviceId": "s", "metric_name": "m", "value": 1, "timestamp": NOW_TEXT},
            "missing_service_id",
            'service_id is required; a record has no member "serviceId"',
        ),
        (
            {"service_id": "s", "type": "log", "message": "hello", "level": "info", "timestamp": NOW_TEXT},
            "missing_body",
            'body is required; a record has no member "message", "level"',
        ),
        (
            {"service_id": "s", "metric_name": "m", "value": 1, "time": NOW_TEXT, "a": 1, "b": 2, "c": 3, "none": None},
            "missing_timestamp",
            'timestamp is required; a record has no member "time", "a", "b"',
        ),
        ({"resourceSpans": []}, "missing_service_id", "service_id is required; this is OTLP, which is for /v1/traces"),
        ({"resource_logs": []}, "missing_service_id", "service_id is required; this is OTLP, which is for /v1/logs"),
        (
            [METRIC],
            "invalid_record",
            "a record must be a JSON object; got array of 1: an array of records is for /api/v1/telemetry/batch, by itself",
        ),
    ],
)
def test_another_shape_is_answered_what_to_send(record: Any, reason: str, message: str) -> None:
    """Other names, OTLP, and an array."""
    assert (reason, message) == refusal(adapt_one(record))


def test_an_empty_batch_is_empty() -> None:
    """Nothing queued, nothing failed."""
    adapted = adapt_batch(b" [] ")
    assert ([], 0, 0) == (adapted.parts, adapted.accepted_count(), adapted.rejected_count())


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b"5", b"null", b'"x"', b"NaN"])
def test_one_record_that_is_no_object(body: bytes) -> None:
    """Refused as that one record."""
    reason, message = refusal(adapt(body))
    assert ("invalid_record", True) == (reason, message.startswith("a record must be a JSON object; got "))


@pytest.mark.parametrize("message_bytes_max", [200, 400, 5_000])
def test_messages_stay_within_their_limit(message_bytes_max: int) -> None:
    """Every record is in one message, and one that alone is too large is rejected by its own index."""
    batch: list[dict[str, Any]] = []
    for n in range(300):
        record = METRIC | {"metric_name": f"m{n % 5}", "value": n} if n % 3 else LOG | {"body": str(n)}
        tags = {"n": "x" * (110 if n % 50 == 7 or n % 50 == 9 else 1)}
        batch.append(record | {"service_id": f"s{n % 2}", "attributes": tags})
    adapted = adapt_batch(json.dumps(batch).encode(), message_bytes_max)
    assert all(len(part.payload) <= message_bytes_max for part in adapted.parts)
    too_large = [n for n in range(300) if n % 50 in (7, 9)] if message_bytes_max == 200 else []
    assert [(n, errors.RECORD_TOO_LARGE) for n in too_large] == [(r.index, r.reason) for r in adapted.rejections]
    numbers = []
    for made in records_of(adapted):
        points = [int(point.as_double) for metric in made.metrics for point in metric.gauge.data_points]
        logs = [int(log.body.string_value) for log in made.log_records]
        assert made.item_count == len(points) + len(logs)
        numbers += points + logs
    assert [n for n in range(300) if n not in too_large] == sorted(numbers)
    assert 300 == adapted.accepted_count() + adapted.rejected_count()
    assert list(range(len(adapted.parts))) == sorted({record.batch_part for record in records_of(adapted)})


def as_parsed(text: str) -> int:
    """What `parse_time` says of it, by the twin."""
    expected = nanoseconds(text)
    if expected is None:
        return INVALID
    if expected <= 0:
        return BEFORE
    return expected if expected // 10**9 < 9_223_372_036 else BEYOND


_digits = st.integers(0, 99).map("{:02}".format)
_dates = st.builds(
    "{:04}-{}-{}".format, st.integers(0, 9999), st.integers(0, 13).map("{:02}".format), st.integers(0, 32).map("{:02}".format)
)
_clocks = st.builds(
    "{}:{}:{}".format,
    st.integers(0, 24).map("{:02}".format),
    st.integers(0, 60).map("{:02}".format),
    st.integers(0, 61).map("{:02}".format),
)
_fractions = st.one_of(st.just(""), st.text("0123456789", max_size=12).map(".{}".format))
_zones = st.one_of(
    st.sampled_from(["Z", "z", "", "+00:00", "-00:00", " Z", " +0000", "+00", "+", "+0", "+00:", "+000", "  Z", " "]),
    st.builds("{}{}{}{}".format, st.sampled_from("+-"), _digits, st.sampled_from((":", "")), _digits),
)


@examples(600)
@given(st.builds("{}{}{}{}{}".format, _dates, st.sampled_from("TTTTt _"), _clocks, _fractions, _zones))
@example("2016-12-31T23:59:60Z")
@example("2017-01-01T05:29:60.5+05:30")
@example("2016-12-31T23:58:60Z")
@example("2000-02-29T00:00:00Z")
@example("1900-02-29T00:00:00Z")
@example("0000-02-29T00:00:00Z")
@example("1970-01-01T00:00:00.000000001Z")
@example("2262-04-11T23:47:15.999999999Z")
@example("2262-04-11T23:47:16Z")
@example("2026-04-10T12:00:00+00:0")
@example("2026-04-10T12:00:00." + "9" * 100_000 + "Z")
def test_timestamps_are_read_as_the_twin_does(text: str) -> None:
    """RFC 3339 with nine digits, offsets, leap seconds; from year 0 to 9999."""
    assert as_parsed(text) == parse_time(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-10T12:00:00+0000",
        "2026-04-10 12:00:00Z",
        "2026-04-10 14:00:00+02",  # PostgreSQL
        "2026-04-10 14:00:00 +0200",  # Ruby, Go, git
        "2026-04-10 06:30:00.000-0530",
        "2026-04-10T12:00:00.000+0000",  # Java, Jackson
    ],
)
def test_times_as_other_programs_print_them(text: str) -> None:
    """A space may be for the T or before the offset, and offsets be without a colon; each is the same moment."""
    adapted = adapt_one(METRIC | {"timestamp": text})
    (record,) = records_of(adapted)
    assert NOW == record.metrics[0].gauge.data_points[0].time_unix_nano


@pytest.mark.parametrize("text", ["2026-04-10T12:00:00", "2026-04-10 12:00:00", "2026-04-10", "2026-04-10_12:00:00Z"])
def test_times_without_an_offset_are_none(text: str) -> None:
    """Nobody knows which moment it is."""
    assert "invalid_timestamp" == refusal(adapt_one(METRIC | {"timestamp": text}))[0]


@examples(200)
@given(st.one_of(st.text(max_size=30), st.text("0123456789-: TZ.+", min_size=18, max_size=30)))
def test_any_text_is_a_timestamp_or_not(text: str) -> None:
    """A number, never an exception."""
    assert as_parsed(text) == parse_time(text.encode())
