"""adapters/prometheus/write_v1 against its twin in plain protobuf, and what the twin can't say: bounds, messages, limits."""

import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from support.adapted import batch_of, bits, reasons
from support.examples import examples
from support.limits import LOW
from support.records import flat
from support.references.twins import BATCH_ID, MESSAGE_BYTES_MAX, NOW, adapt_v2
from support.references.twins import adapt_v1 as adapt
from support.references.twins import check_v1 as check
from support.strategies.otlp import oddly_written, varint
from support.strategies.prometheus import NOW_MS, STALE, histograms, write_requests

from adapters import errors
from adapters.errors import Malformed, RequestRefused
from adapters.prometheus import write_v1
from adapters.record import SOURCE_PROMETHEUS_WRITE_V1, Header
from adapters.repairs import EXEMPLAR_DROPPED, HISTOGRAM_COUNT_DIFFERS
from collector.ingest.validate import LimitRules, Limits

LIMITS = LOW


def request_of(labels: dict[str, str], *samples: tuple[float, int]) -> write_pb2.WriteRequest:
    request = write_pb2.WriteRequest()
    series = request.timeseries.add()
    for name, value in labels.items():
        series.labels.add(name=name, value=value)
    for number, moment in samples:
        series.samples.add(value=number, timestamp=moment)
    return request


def _length_delimited(payload: bytes) -> bytes:
    return varint(len(payload)) + payload


@examples(400)
@given(write_requests())
def test_any_request_is_adapted_as_the_twin_does(request_: write_pb2.WriteRequest) -> None:
    """The records are the twin's, and no longer than protobuf's own encoder makes them."""
    check(request_.SerializeToString())


@examples(400)
@given(st.data())
def test_an_oddly_written_request_is_adapted_as_the_twin_does(data: st.DataObject) -> None:
    """Fields out of order, repeated, unpacked or unknown mean what protobuf says they mean."""
    check(data.draw(oddly_written(data.draw(write_requests()))))


@examples(200)
@given(histograms())
def test_any_histogram_is_adapted_as_the_twin_does(histogram: write_pb2.Histogram) -> None:
    """Integer or float, exponential or custom, whole or spoilt."""
    request = request_of({"__name__": "latency", "job": "api"})
    request.timeseries[0].histograms.append(histogram)
    check(request.SerializeToString())


@examples(300)
@given(st.data())
def test_spoilt_bytes_are_adapted_as_the_twin_does(data: st.DataObject) -> None:
    """Some bytes of a request changed: protobuf's verdict on what is left is the adapter's."""
    body = bytearray(data.draw(write_requests()).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.sampled_from([0, 1, 10, 11, 12, 18, 127, 128, 255]))
    check(bytes(body))


@examples(200)
@given(st.binary(max_size=40))
def test_random_bytes_are_adapted_as_the_twin_does(body: bytes) -> None:
    """Whatever comes, it is refused as malformed or read as protobuf reads it."""
    check(body)


@examples(15)
@given(write_requests())
def test_a_truncated_request_is_adapted_as_the_twin_does(request_: write_pb2.WriteRequest) -> None:
    """Cut at every byte."""
    body = request_.SerializeToString()[:600]
    for length in range(len(body)):
        check(body[:length])


def rich_request() -> write_pb2.WriteRequest:
    """One of everything."""
    request = request_of({"__name__": "latency", "job": "api", "instance": "a:1", "le": "é"}, (1.0, NOW_MS), (STALE, NOW_MS))
    exemplar = request.timeseries[0].exemplars.add(value=0.25, timestamp=NOW_MS)
    exemplar.labels.add(name="trace_id", value="ab" * 16)
    for schema in (3, -53):
        whole = request.timeseries[0].histograms.add(count_int=300, sum=1.5, schema=schema, timestamp=NOW_MS)
        whole.positive_spans.add(offset=1, length=2)
        whole.positive_deltas.extend([200, -100])
        if schema == -53:
            whole.custom_values.extend([0.5, 1.5])
    of_doubles = request.timeseries[0].histograms.add(count_float=3, sum=1.5, zero_threshold=1e-9, timestamp=NOW_MS)
    of_doubles.negative_spans.add(offset=-3, length=2)
    of_doubles.negative_counts.extend([1, 2])
    request.metadata.add(metric_family_name="latency", help="How long.", unit="seconds")
    return request


def test_one_of_everything_truncated_at_every_byte() -> None:
    """What is left is malformed for both, or read alike by both."""
    body = rich_request().SerializeToString()
    assert 5 == adapt(body).accepted_count()
    for length in range(len(body) + 1):
        check(body[:length])


@examples(150)
@given(st.data())
def test_one_of_everything_oddly_written(data: st.DataObject) -> None:
    """Every field shuffled, repeated, unpacked, beside unknown ones."""
    check(data.draw(oddly_written(rich_request())))


@pytest.mark.parametrize(
    "body",
    [
        b"\x8a\x80\x80\x80\x80\x00\x00",  # a tag in six bytes
        b"\x0a\x80\x80\x80\x80\x80\x00",  # a length in six bytes
        b"\x0a\x80\x80\x80\x80\x00",
        b"\x8a\x00\x00",
        b"\x10" + b"\xff" * 9 + b"\x7f",  # a varint of more than 64 bits
        b"\x10" + b"\xff" * 10 + b"\x01",
        b"\x00\x00",
        b"\x53\x54",  # a group
        b"\x53" * 10_000,
        b"\x0a\x04\x0a\x02\x0a\x00",
        b"\x0a\x05\x0a\x03\x0a\x01\xff",  # a label's name is not UTF-8
        b"\x1a\x03\x22\x01\xff",  # a description is not
    ],
)
def test_odd_encodings_have_protobufs_verdict(body: bytes) -> None:
    """Legal or not: protobuf itself decides on what is odd."""
    check(body)


def test_malformed_says_where() -> None:
    """The message has the length, and where reading stopped."""
    body = request_of({"__name__": "up"}, (1.0, NOW_MS)).SerializeToString()
    with pytest.raises(Malformed, match=r"^cannot decode WriteRequest: 34 bytes, malformed at or after byte \d+$"):
        adapt(body[:-2])


@pytest.mark.parametrize("value", [STALE, float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 5e-324, 1.7976931348623157e308])
def test_values_keep_their_bits(value: float) -> None:
    """Stale markers, NaN, infinities and minus zero come out with the bits they went in with."""
    [record] = batch_of(adapt(request_of({"__name__": "up"}, (value, NOW_MS)).SerializeToString())).records
    [point] = record.metrics[0].gauge.data_points
    assert bits(value) == bits(point.as_double)
    assert int(bits(value) == bits(STALE)) == point.flags


def test_labels_become_name_service_instance_and_attributes() -> None:
    """docs/use/api.md has the rule."""
    labels = {"__name__": "http_requests_total", "code": "200", "instance": "10.0.0.1:9090", "job": "api"}
    request = request_of(labels, (1.0, NOW_MS))
    request.metadata.add(metric_family_name="http_requests", help="Requests.", unit="requests")
    [record] = batch_of(adapt(request.SerializeToString())).records
    [metric] = record.metrics
    resource = {attribute.key: attribute.value.string_value for attribute in record.resource.attributes}
    attributes = {attribute.key: attribute.value.string_value for attribute in metric.gauge.data_points[0].attributes}
    assert ("api", {"service.name": "api", "service.instance.id": "10.0.0.1:9090"}) == (record.service_id, resource)
    assert ("http_requests_total", "Requests.", "requests") == (metric.name, metric.description, metric.unit)
    assert {"code": "200"} == attributes


@pytest.mark.parametrize(
    ("labels", "reason", "message"),
    [
        ([("job", "a")], errors.MISSING_METRIC_NAME, "label __name__ is missing or empty"),
        ([("__name__", "")], errors.MISSING_METRIC_NAME, "label __name__ is missing or empty"),
        ([("__name__", "a"), ("__name__", "b")], errors.INVALID_LABELS, 'label "__name__" occurs twice'),
        ([("__name__", "a"), ("x\n", "1"), ("x\n", "1")], errors.INVALID_LABELS, 'label "x\\n" occurs twice'),
        ([("__name__", "a"), ("", "1")], errors.INVALID_LABELS, "a label has no name"),
        ([("__name__", "a"), ("", "")], errors.INVALID_LABELS, "a label has no name"),
        ([("__name__", "a" * 101)], errors.NAME_TOO_LONG, "a name is longer than 100 bytes"),
    ],
)
def test_bad_labels_reject_their_series_and_no_other(labels: list[tuple[str, str]], reason: int, message: str) -> None:
    """Every sample of the series is rejected; the neighbours are kept."""
    request = write_pb2.WriteRequest()
    for entries in ([("__name__", "before")], labels, [("__name__", "after")]):
        series = request.timeseries.add()
        for name, value in entries:
            series.labels.add(name=name, value=value)
        series.samples.add(value=1, timestamp=NOW_MS)
        series.samples.add(value=2, timestamp=NOW_MS)
    adapted = adapt(request.SerializeToString())
    assert [(2, reason), (3, reason)] == reasons(adapted)
    assert {message} == {rejection.message for rejection in adapted.rejections}
    assert ["before", "after"] == [metric.name for metric in batch_of(adapted).records[0].metrics]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.positive_deltas.append(1), "spans of 2 buckets, counts of 3"),
        (lambda h: setattr(h, "schema", 9), "schema 9 is not -4 to 8 or -53"),
        (lambda h: h.positive_counts.append(1.0), "integer and float counts are mixed"),
        (lambda h: h.positive_deltas.__setitem__(1, -3), "a bucket's count is negative or beyond int64"),
        (lambda h: h.custom_values.append(1.0), "schema 3 has no custom bounds"),
        (lambda h: h.positive_spans.add(offset=-1), "span 1 has the negative offset -1"),
    ],
)
def test_histograms_that_do_not_fit_are_rejected(change: Callable[[write_pb2.Histogram], None], message: str) -> None:
    """The message names what does not fit."""
    histogram = write_pb2.Histogram(count_int=7, zero_count_int=1, sum=3.5, schema=3, timestamp=NOW_MS)
    histogram.positive_spans.add(offset=-2, length=2)
    histogram.positive_deltas.extend([2, 2])
    request = request_of({"__name__": "latency"})
    request.timeseries[0].histograms.append(histogram)
    assert [] == reasons(adapt(request.SerializeToString()))
    change(request.timeseries[0].histograms[0])
    adapted = adapt(request.SerializeToString())
    assert [(0, errors.INVALID_HISTOGRAM)] == reasons(adapted)
    assert message == adapted.rejections[0].message


@pytest.mark.parametrize(
    ("count", "sum_", "notes"),
    [
        (7, 3.5, 0),
        (9, 3.5, 1),
        (6, 3.5, 1),
        (9, math.nan, 0),  # two were NaN, and are in no bucket
        (6, math.nan, 1),
    ],
)
def test_a_count_that_is_not_the_sum_of_the_buckets_is_kept(count: int, sum_: float, notes: int) -> None:
    """The answer says so; every number is stored as it was sent."""
    histogram = write_pb2.Histogram(count_int=count, zero_count_int=1, sum=sum_, schema=3, timestamp=NOW_MS)
    histogram.positive_spans.add(offset=-2, length=2)
    histogram.positive_deltas.extend([2, 2])
    request = request_of({"__name__": "latency"})
    request.timeseries[0].histograms.append(histogram)
    adapted = adapt(request.SerializeToString())
    assert ([], notes) == (reasons(adapted), (adapted.repaired or {}).get(HISTOGRAM_COUNT_DIFFERS, 0))
    [metric] = batch_of(adapted).records[0].metrics
    [point] = metric.exponential_histogram.data_points
    assert (count, 1, [2, 4]) == (point.count, point.zero_count, list(point.positive.bucket_counts))


def test_a_histogram_in_figures() -> None:
    """Spans and deltas by hand: indices are one less, the gap is zeros, a gauge histogram has no temporality."""
    histogram = write_pb2.Histogram(count_int=10, zero_count_int=1, zero_threshold=0.5, sum=3.5, schema=-1, timestamp=NOW_MS)
    histogram.reset_hint = write_pb2.Histogram.GAUGE
    histogram.positive_spans.add(offset=-2, length=1)
    histogram.positive_spans.add(offset=2, length=2)
    histogram.positive_deltas.extend([2, 1, -1])
    histogram.negative_spans.add(offset=1, length=1)
    histogram.negative_deltas.append(2)
    request = request_of({"__name__": "latency", "code": "200"})
    request.timeseries[0].histograms.append(histogram)
    [metric] = batch_of(adapt(request.SerializeToString())).records[0].metrics
    [point] = metric.exponential_histogram.data_points
    assert 0 == metric.exponential_histogram.aggregation_temporality
    assert (10, 3.5, -1, 1, 0.5) == (point.count, point.sum, point.scale, point.zero_count, point.zero_threshold)
    assert (-3, [2, 0, 0, 3, 2]) == (point.positive.offset, list(point.positive.bucket_counts))
    assert (0, [2]) == (point.negative.offset, list(point.negative.bucket_counts))


def test_fractional_counts_are_kept_exactly_beside_the_rounded_ones() -> None:
    """OTLP's counts are integers; an attribute has the doubles."""
    histogram = write_pb2.Histogram(count_float=3.75, zero_count_float=0.25, sum=1, schema=0, timestamp=NOW_MS)
    histogram.positive_spans.add(offset=1, length=2)
    histogram.positive_counts.extend([1.5, 2.0])
    request = request_of({"__name__": "latency"})
    request.timeseries[0].histograms.append(histogram)
    [metric] = batch_of(adapt(request.SerializeToString())).records[0].metrics
    [point] = metric.exponential_histogram.data_points
    assert (4, 0, [2, 2]) == (point.count, point.zero_count, list(point.positive.bucket_counts))
    assert "infrasage.float_histogram" == point.attributes[0].key
    assert (
        '{"count":3.75,"zero_count":0.25,"positive":{"0":1.5,"1":2.0},"negative":{}}' == point.attributes[0].value.string_value
    )


def test_gaps_are_bounded_in_a_request() -> None:
    """A few bytes that ask for many empty buckets are refused, at little cost; the rest is kept."""
    request = request_of({"__name__": "latency"})
    for _ in range(2_000):
        histogram = request.timeseries[0].histograms.add(count_int=2, sum=1, schema=0, timestamp=NOW_MS)
        histogram.positive_spans.add(offset=1, length=1)
        histogram.positive_spans.add(offset=60_000, length=1)
        histogram.positive_deltas.extend([1, 0])
    adapted = adapt(request.SerializeToString())
    kept = (4 << 20) // 60_000
    assert kept == adapted.accepted_count()
    assert {errors.INVALID_HISTOGRAM} == {rejection.reason for rejection in adapted.rejections}
    assert "more than 4194304 empty buckets in the gaps of one request" == adapted.rejections[0].message


def test_exemplars_go_to_the_nearest_sample() -> None:
    """Hex ids of any case become ids."""
    request = request_of({"__name__": "latency_bucket"}, (1.0, NOW_MS - 1000), (2.0, NOW_MS), (3.0, 0))
    exemplar = request.timeseries[0].exemplars.add(value=0.25, timestamp=NOW_MS - 400)
    for name, value in {"trace_id": "AB" * 16, "span_id": "cd" * 8, "user": "u"}.items():
        exemplar.labels.add(name=name, value=value)
    adapted = adapt(request.SerializeToString())
    first, second = batch_of(adapted).records[0].metrics[0].gauge.data_points
    [made] = second.exemplars
    assert [] == list(first.exemplars)
    assert (b"\xab" * 16, b"\xcd" * 8, 0.25, (NOW_MS - 400) * 10**6) == (
        made.trace_id,
        made.span_id,
        made.as_double,
        made.time_unix_nano,
    )
    assert ["user"] == [attribute.key for attribute in made.filtered_attributes]


def test_an_exemplar_is_rejected_with_the_sample_it_belongs_to() -> None:
    """It does not move on to a sample that is taken; and one that breaks a rule is left out alone."""
    request = request_of({"__name__": "latency"}, (1.0, NOW_MS), (2.0, 5), (3.0, NOW_MS + 9))
    for moment in (NOW_MS, 5, 6, NOW_MS + 9):
        request.timeseries[0].exemplars.add(value=0.25, timestamp=moment)
    request.timeseries[0].exemplars[3].labels.add(name="k" * 101, value="v")
    adapted = adapt(request.SerializeToString())
    assert [(1, errors.TIMESTAMP_TOO_OLD)] == reasons(adapted)
    assert {EXEMPLAR_DROPPED: 1} == adapted.repaired
    first, last = batch_of(adapted).records[0].metrics[0].gauge.data_points
    assert [NOW] == [exemplar.time_unix_nano for exemplar in first.exemplars]
    assert [] == list(last.exemplars)


def test_exemplars_without_samples_are_kept() -> None:
    """Prometheus sends them so: one item, a point without a value that holds them."""
    request = request_of({"__name__": "latency_bucket"})
    for moment in (NOW_MS, NOW_MS - 5):
        request.timeseries[0].exemplars.add(value=0.25, timestamp=moment)
    adapted = adapt(request.SerializeToString())
    [point] = batch_of(adapted).records[0].metrics[0].gauge.data_points
    assert (1, NOW, 1, 2) == (adapted.accepted_count(), point.time_unix_nano, point.flags, len(point.exemplars))
    assert point.as_double != point.as_double


@pytest.mark.parametrize("message_bytes_max", [300, 700, 5_000])
def test_messages_stay_within_their_limit(message_bytes_max: int) -> None:
    """Every sample is in one message, and one that alone is too large is rejected by its own index."""
    request = write_pb2.WriteRequest()
    for n in range(300):
        series = request.timeseries.add()
        value = "x" * 120 if n % 50 == 7 else "y"
        for name, text in {"__name__": f"m{n // 20}", "job": f"j{n % 3}", "v": value, "w": value}.items():
            series.labels.add(name=name, value=text)
        series.samples.add(value=n, timestamp=NOW_MS)
    adapted = adapt(request.SerializeToString(), message_bytes_max)
    assert all(len(part.payload) <= message_bytes_max for part in adapted.parts)
    too_large = [n for n in range(300) if n % 50 == 7] if message_bytes_max == 300 else []
    assert [(n, errors.RECORD_TOO_LARGE) for n in too_large] == reasons(adapted)
    records = [record for part in adapted.parts for record in flat(part.payload).records]
    values = sorted(
        int(point.as_double) for record in records for metric in record.metrics for point in metric.gauge.data_points
    )
    assert [n for n in range(300) if n not in too_large] == values
    assert 300 == sum(record.item_count for record in records) + len(too_large)
    assert all(record.item_count == sum(len(metric.gauge.data_points) for metric in record.metrics) for record in records)
    assert message_bytes_max < 5_000 or all(len(part.payload) > message_bytes_max // 2 for part in adapted.parts[:-1])


def test_long_names_of_rejected_metrics_do_not_stop_others() -> None:
    """A metric whose name and description leave no room for a point is rejected as too large, alone."""
    request = request_of({"__name__": "n" * 99}, (1.0, NOW_MS))
    request.timeseries.extend(request_of({"__name__": "up"}, (2.0, NOW_MS)).timeseries)
    request.metadata.add(metric_family_name="n" * 99, help="h" * 500)
    adapted = adapt(request.SerializeToString(), 400)
    assert [(0, errors.RECORD_TOO_LARGE)] == reasons(adapted)
    assert ["up"] == [metric.name for metric in batch_of(adapted).records[0].metrics]


def test_metadata_without_series_is_kept() -> None:
    """Prometheus sends it apart from its series: each family gets a point without a value, with its metadata."""
    request = write_pb2.WriteRequest()
    request.metadata.add(type="COUNTER", metric_family_name="http_requests", help="Requests.", unit="requests")
    request.metadata.add(type="GAUGE", metric_family_name="load", help="Of one host.")
    request.metadata.add(type="GAUGE", metric_family_name="load", help="Of another host.")
    adapted = adapt(request.SerializeToString())
    [record] = batch_of(adapted).records
    assert (3, (0, 0, 0)) == (adapted.accepted_count(), (adapted.samples, adapted.histograms, adapted.exemplars))
    assert "unknown_service" == record.service_id
    described = [
        (metric.name, metric.description, metric.unit, metric.metadata[0].key, metric.metadata[0].value.string_value)
        for metric in record.metrics
    ]
    assert [
        ("http_requests", "Requests.", "requests", "prometheus.type", "counter"),
        ("load", "Of one host.", "", "prometheus.type", "gauge"),
        ("load", "Of another host.", "", "prometheus.type", "gauge"),
    ] == described
    for metric in record.metrics:
        [point] = metric.summary.data_points
        assert (NOW, 1, 0) == (point.time_unix_nano, point.flags, point.count)


def test_metadata_of_a_series_is_no_item_of_its_own() -> None:
    """Metadata beside items of its family, taken or rejected, is no second point: it goes with these items."""
    request = request_of({"__name__": "up"}, (1.0, NOW_MS))
    request.timeseries.extend(request_of({"__name__": "down"}, (1.0, 1)).timeseries)
    request.timeseries.extend(request_of({"__name__": "empty"}).timeseries)
    for name in ("up", "down", "empty"):
        request.metadata.add(metric_family_name=name, help="Whether it is.")
    adapted = adapt(request.SerializeToString())
    assert [(1, errors.TIMESTAMP_TOO_OLD)] == reasons(adapted)
    assert [("up", "gauge"), ("empty", "summary")] == [
        (metric.name, metric.WhichOneof("data")) for metric in batch_of(adapted).records[0].metrics
    ]


def test_metadata_of_nothing_is_rejected() -> None:
    """It names no metric."""
    adapted = adapt(b"\x1a\x00")
    assert [(0, errors.MISSING_METRIC_NAME)] == reasons(adapted)
    assert "metadata without the name of its family" == adapted.rejections[0].message


@pytest.mark.parametrize("body", [b"", b"\x0a\x00", b"\x0a\x06\x0a\x04\x0a\x02up"])
def test_requests_without_items_are_empty(body: bytes) -> None:
    """Nothing, an empty series, labels alone: nothing accepted, nothing rejected."""
    adapted = adapt(body)
    assert ([], 0, 0) == (adapted.parts, adapted.accepted_count(), adapted.rejected_count())


def test_hostile_bodies_are_quick() -> None:
    """Many groups, spans, labels or exemplars cost no more than their length."""
    spans = b"".join(b"\x5a\x06\x08\xfe\xff\xff\xff\x0f" for _ in range(20_000))
    series = b"\x0a\x06\x0a\x02up" + b"\x22" + _length_delimited(spans) + spans
    many = request_of({"__name__": "up"}, *[(1.0, NOW_MS)] * 40_000)
    for _ in range(40_000):
        many.timeseries[0].exemplars.add(timestamp=NOW_MS)
    bodies = [
        b"\x53" * 1_000_000,
        b"\x0a" + _length_delimited(series) + series,
        b"\x0a\x00" * 100_000,
        many.SerializeToString(),
    ]
    started = time.process_time()
    for body in bodies:
        try:
            adapt(body)
        except Malformed:
            continue
    assert time.process_time() - started < 5


def many_points() -> bytes:
    """5 MB of samples, each of which takes all of their series' labels with it."""
    labels = request_of({"__name__": "up"} | {f"{n}{'k' * 90}": "v" * 120 for n in range(3)}).timeseries[0].SerializeToString()
    sample = b"\x12" + _length_delimited(write_pb2.Sample(value=1, timestamp=NOW_MS).SerializeToString())
    return b"\x0a" + _length_delimited(labels + sample * 420_000)


@pytest.mark.parametrize(
    "body",
    [many_points(), b"\x1a\x03\x12\x01a" * 300_000, b"\x0a" + _length_delimited(b"\x1a\x00" * 600_000)],
    ids=["points", "metadata", "exemplars"],
)
def test_what_becomes_of_a_request_is_bounded(body: bytes) -> None:
    """One that would take far more memory than it has bytes is refused as a whole, with a number."""
    with pytest.raises(RequestRefused, match="becomes more than 268435456,") as refused:
        adapt(body)
    assert errors.PAYLOAD_TOO_LARGE == refused.value.reason


def test_oddly_written_requests_are_bounded() -> None:
    """Protobuf's own parser, which would take many times its size, is not asked about 16 MiB and more."""
    unknown = bytes((16 << 20) - 6)
    with pytest.raises(Malformed, match=r"^cannot decode WriteRequest: 16777217 bytes, not in canonical form at byte 1;"):
        adapt(b"\x13\x14\x7a" + _length_delimited(unknown))
    with pytest.raises(RequestRefused, match="holds more than 5000000 elements"):
        adapt(b"\x13" + bytes(16 << 20))


def test_many_exemplars_find_their_samples() -> None:
    """Their number times that of samples is too many to try, within this test's time."""
    count = 30_000
    request = request_of({"__name__": "up"}, *[(1.0, NOW_MS - n) for n in range(count)])
    for n in range(count):
        request.timeseries[0].exemplars.add(value=n, timestamp=NOW_MS - n)
    adapted = adapt(request.SerializeToString())
    points = [point for metric in batch_of(adapted).records[0].metrics for point in metric.gauge.data_points]
    assert (count, count) == (adapted.samples, adapted.exemplars)
    assert all([point.time_unix_nano] == [exemplar.time_unix_nano for exemplar in point.exemplars] for point in points)


def test_rules_are_asked_anew_in_each_request() -> None:
    """A series that was taken under one tenant's limits is refused under another's."""
    body = request_of({"__name__": "m" * 60, "a": "1"}, (1.0, NOW_MS)).SerializeToString()
    strict = Limits(
        past_max_s=1,
        future_max_s=1,
        attributes_max=9,
        attribute_key_bytes_max=9,
        attribute_value_bytes_max=99,
        name_bytes_max=50,
    )
    header = Header("acme", SOURCE_PROMETHEUS_WRITE_V1, NOW, BATCH_ID)
    assert 1 == adapt(body).accepted_count()
    assert [(0, errors.NAME_TOO_LONG)] == reasons(write_v1.adapt(body, header, LimitRules(strict, NOW), MESSAGE_BYTES_MAX))
    assert 1 == adapt(body).accepted_count()


def test_a_label_without_a_value_is_not_there() -> None:
    """It is so in 1.0 and 2.0, in series and exemplars. An empty job is none; a repeated name counts with its value."""
    labels = [("__name__", "m"), ("job", ""), ("a", ""), ("a", "1"), ("instance", "")]
    request = write_pb2.WriteRequest()
    series = request.timeseries.add()
    for name, value in labels:
        series.labels.add(name=name, value=value)
    series.samples.add(value=1, timestamp=NOW_MS)
    exemplar = series.exemplars.add(value=1, timestamp=NOW_MS)
    for name, value in (("b", ""), ("c", "2"), ("trace_id", "0" * 32), ("span_id", "")):
        exemplar.labels.add(name=name, value=value)
    symbols = ["", "__name__", "m", "job", "a", "1", "instance", "b", "c", "2", "trace_id", "0" * 32, "span_id"]
    second = write_v2_pb2.Request(symbols=symbols)
    series_v2 = second.timeseries.add(labels_refs=[symbols.index(text) for pair in labels for text in pair])
    series_v2.samples.add(value=1, timestamp=NOW_MS)
    series_v2.exemplars.add(value=1, timestamp=NOW_MS, labels_refs=[7, 0, 8, 9, 10, 11, 12, 0])
    for adapted in (adapt(request.SerializeToString()), adapt_v2(second.SerializeToString())):
        [record] = batch_of(adapted).records
        [point] = record.metrics[0].gauge.data_points
        assert ("unknown_service", [("a", "1")]) == (
            record.service_id,
            [(a.key, a.value.string_value) for a in point.attributes],
        )
        [kept] = point.exemplars
        assert ([("c", "2")], b"") == ([(a.key, a.value.string_value) for a in kept.filtered_attributes], kept.trace_id)
        assert not record.HasField("resource")


@pytest.mark.parametrize("zeros", ["0", "0" * 8, "0" * 16, "0" * 32])
def test_an_id_of_zeros_in_an_exemplar_is_none(zeros: str) -> None:
    """It is none however long it is: senders with ids of 64 bits write 16 zeros of a trace, others one."""
    request = request_of({"__name__": "m"}, (1.0, NOW_MS))
    exemplar = request.timeseries[0].exemplars.add(value=1, timestamp=NOW_MS)
    symbols = ["", "__name__", "m", "trace_id", "span_id", zeros, "user", "0"]
    second = write_v2_pb2.Request(symbols=symbols)
    series = second.timeseries.add(labels_refs=[1, 2])
    series.samples.add(value=1, timestamp=NOW_MS)
    for name in ("trace_id", "span_id"):
        exemplar.labels.add(name=name, value=zeros)
    exemplar.labels.add(name="user", value="0")
    series.exemplars.add(value=1, timestamp=NOW_MS, labels_refs=[3, 5, 4, 5, 6, 7])
    for adapted in (adapt(request.SerializeToString()), adapt_v2(second.SerializeToString())):
        [point] = batch_of(adapted).records[0].metrics[0].gauge.data_points
        [kept] = point.exemplars
        assert (b"", b"", ["user"]) == (kept.trace_id, kept.span_id, [a.key for a in kept.filtered_attributes])


def test_without_a_job_the_service_is_in_service_name() -> None:
    """OpenTelemetry's exporter sends it so. The labels stay attributes, and a job or an instance comes first."""
    request = request_of({"__name__": "up", "service_instance_id": "i-1", "service_name": "shop"}, (1.0, NOW_MS))
    labels = {"__name__": "up", "instance": "a:1", "job": "api", "service_instance_id": "i-1", "service_name": "shop"}
    request.timeseries.extend(request_of(labels, (1.0, NOW_MS)).timeseries)
    records = batch_of(adapt(request.SerializeToString())).records
    assert ["shop", "api"] == [record.service_id for record in records]
    assert [{"service.name": "shop", "service.instance.id": "i-1"}, {"service.name": "api", "service.instance.id": "a:1"}] == [
        {pair.key: pair.value.string_value for pair in record.resource.attributes} for record in records
    ]
    for record in records:
        attributes = record.metrics[0].gauge.data_points[0].attributes
        assert {"service_instance_id": "i-1", "service_name": "shop"} == {
            pair.key: pair.value.string_value for pair in attributes
        }
