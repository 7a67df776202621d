"""adapters/prometheus/write_v2 against its twin in plain protobuf, and what the twin can't say: bounds, messages, the memory of
symbols. What 2.0 has in common with 1.0 (limits of messages, hostile histograms, exemplars in figures) is in test_write_v1.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.prometheus.v2 import write_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from support.adapted import batch_of, bits, reasons
from support.examples import examples
from support.references.twins import BATCH_ID, MESSAGE_BYTES_MAX, NOW
from support.references.twins import adapt_v2 as adapt
from support.references.twins import check_v2 as check
from support.strategies.otlp import oddly_written, varint
from support.strategies.prometheus import NOW_MS, STALE, requests_v2

from adapters import errors, repairs
from adapters.errors import Malformed, RequestRefused
from adapters.prometheus import write_v2
from adapters.prometheus.series import Series, SeriesCache
from adapters.prometheus.symbol_ids import SymbolIds
from adapters.record import SOURCE_PROMETHEUS_WRITE_V2, Adapted, Header
from collector.ingest.validate import LimitRules, Limits

Metadata = write_pb2.Metadata


def adapt_request(request: write_pb2.Request) -> Adapted:
    return adapt(request.SerializeToString())


def metrics_of(adapted: Adapted) -> list[Metric]:
    return [metric for record in batch_of(adapted).records for metric in record.metrics]


def written(adapted: Adapted) -> tuple[int, int, int]:
    return adapted.samples, adapted.histograms, adapted.exemplars


def symbol(request: write_pb2.Request, text: str) -> int:
    """A reference to it, in a table that begins with the empty text."""
    for needed in ("", text):
        if needed not in request.symbols:
            request.symbols.append(needed)
    return list(request.symbols).index(text)


def add_series(
    request: write_pb2.Request, labels: Mapping[str, str], type_: int = 0, help_: str = "", unit: str = ""
) -> write_pb2.TimeSeries:
    series = request.timeseries.add()
    for pair in labels.items():
        series.labels_refs.extend(symbol(request, text) for text in pair)
    metadata: Any = series.metadata
    metadata.type = type_
    metadata.help_ref = symbol(request, help_)
    metadata.unit_ref = symbol(request, unit)
    return series


def one_sample(labels: Mapping[str, str], type_: int = 0, value: float = 1.0) -> write_pb2.Request:
    request = write_pb2.Request()
    add_series(request, labels, type_).samples.add(value=value, timestamp=NOW_MS)
    return request


def histogram(**fields: Any) -> write_pb2.Histogram:
    """Of seven observations, one of them in the zero bucket."""
    made = write_pb2.Histogram(**{"count_int": 7, "zero_count_int": 1, "sum": 3.5, "schema": 3, "timestamp": NOW_MS} | fields)
    made.positive_spans.add(offset=-2, length=2)
    made.positive_deltas.extend([2, 2])
    return made


@examples(250)
@given(requests_v2())
def test_any_request_is_adapted_as_the_twin_does(request_: write_pb2.Request) -> None:
    """The records are the twin's, and no longer than protobuf's own encoder makes them."""
    check(request_.SerializeToString())


@examples(200)
@given(st.data())
def test_an_oddly_written_request_is_adapted_as_the_twin_does(data: st.DataObject) -> None:
    """Fields out of order, repeated, unpacked or unknown mean what protobuf says they mean."""
    check(data.draw(oddly_written(data.draw(requests_v2()))))


@examples(150)
@given(st.data())
def test_spoilt_bytes_are_adapted_as_the_twin_does(data: st.DataObject) -> None:
    """Some bytes of a request changed: protobuf's verdict on what is left is the adapter's."""
    body = bytearray(data.draw(requests_v2()).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            at = data.draw(st.integers(0, len(body) - 1))
            body[at] = data.draw(st.sampled_from([0, 1, 10, 11, 18, 34, 42, 127, 128, 255]))
    check(bytes(body))


@examples(100)
@given(st.binary(max_size=40))
def test_random_bytes_are_adapted_as_the_twin_does(body: bytes) -> None:
    """Whatever comes, it is refused as malformed or read as protobuf reads it."""
    check(body)


def rich_request() -> write_pb2.Request:
    """One of everything."""
    request = write_pb2.Request()
    labels = {"job": "api", "instance": "a:1", "le": "é"}
    counter = add_series(request, {"__name__": "http_total"} | labels, Metadata.METRIC_TYPE_COUNTER, "Requests.", "requests")
    counter.samples.add(value=1.0, timestamp=NOW_MS, start_timestamp=NOW_MS - 9)
    counter.samples.add(value=STALE, timestamp=NOW_MS)
    exemplar = counter.exemplars.add(value=0.25, timestamp=NOW_MS)
    exemplar.labels_refs.extend([symbol(request, "trace_id"), symbol(request, "ab" * 16)])
    counter.created_timestamp = NOW_MS - 10
    latency = add_series(request, {"__name__": "latency"} | labels, Metadata.METRIC_TYPE_HISTOGRAM, "How long.", "seconds")
    latency.histograms.append(histogram(start_timestamp=NOW_MS - 9, reset_hint="RESET_HINT_YES"))
    latency.histograms.append(histogram(schema=-53, count_int=6, zero_count_int=0, custom_values=[0.5, 1.5]))
    latency.histograms[1].positive_spans[0].offset = 0
    of_doubles = latency.histograms.add(count_float=3, sum=1.5, zero_threshold=1e-9, timestamp=NOW_MS)
    of_doubles.negative_spans.add(offset=-3, length=2)
    of_doubles.negative_counts.extend([1, 2])
    add_series(request, {"__name__": "described"}, Metadata.METRIC_TYPE_GAUGE)
    return request


def test_one_of_everything_truncated_at_every_byte() -> None:
    """What is left is malformed for both, or read alike by both."""
    body = rich_request().SerializeToString()
    adapted = adapt(body)
    assert (6, (2, 3, 1)) == (adapted.accepted_count(), written(adapted))
    for length in range(len(body) + 1):
        check(body[:length])


@examples(100)
@given(st.data())
def test_one_of_everything_oddly_written(data: st.DataObject) -> None:
    """Every field shuffled, repeated, unpacked, beside unknown ones."""
    check(data.draw(oddly_written(rich_request())))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x22\x00",  # symbols, but no series
        b"\x0a\x03abc\x1a\x01x",  # 1.0's fields: unknown here
        b"\x2a\x00\x22\x00",  # symbols behind the series
        b"\x22\x00\x22\x01\xff",  # a symbol is not UTF-8
        b"\x22\x00\x2a\x05\x0a\x02\x00\x80\x10",  # a reference is cut off
        b"\x22\x00\x2a\x04\x08\x00\x08\x00",  # references, not packed
        b"\x22\x00\x2a\x06\x0a\x01\x00\x0a\x01\x00",  # packed twice
        b"\x22\x00\x2a\x0a\x0a\x08\x80\x80\x80\x80\x10\x80\x80\x00",  # references padded, and beyond 32 bits
        b"\x22\x00\x2a\x07\x2a\x02\x08\x01\x2a\x01\x00",  # metadata twice, once malformed
        b"\x22\x00\x2a\x08\x2a\x02\x08\x01\x2a\x02\x18\x00",  # metadata twice: merged
        b"\x22\x00\x53\x54",  # a group
    ],
)
def test_odd_encodings_have_protobufs_verdict(body: bytes) -> None:
    """Legal or not: protobuf itself decides on what is odd."""
    check(body)


def test_malformed_says_where() -> None:
    """The message has the length, and where reading stopped."""
    body = one_sample({"__name__": "up"}).SerializeToString()
    with pytest.raises(Malformed, match=r"^cannot decode Request: 40 bytes, malformed at or after byte \d+$"):
        adapt(body[:-2])


def test_a_table_without_the_empty_text_is_refused() -> None:
    """References to nothing would be references to something: nothing of the request is kept."""
    request = write_pb2.Request(symbols=["up\n", ""])
    with pytest.raises(Malformed, match=r'^the first of 2 symbols must be the empty text; it is "up\\n"$'):
        adapt_request(request)


# What a series is.


@pytest.mark.parametrize(
    ("name", "type_", "kind"),
    [
        ("http_requests_total", Metadata.METRIC_TYPE_COUNTER, "sum"),
        ("http_requests", Metadata.METRIC_TYPE_COUNTER, "sum"),
        ("latency_bucket", Metadata.METRIC_TYPE_HISTOGRAM, "sum"),
        ("latency_count", Metadata.METRIC_TYPE_HISTOGRAM, "sum"),
        ("latency_sum", Metadata.METRIC_TYPE_SUMMARY, "sum"),
        ("latency_count", Metadata.METRIC_TYPE_SUMMARY, "sum"),
        ("latency", Metadata.METRIC_TYPE_SUMMARY, "gauge"),  # a quantile
        ("latency", Metadata.METRIC_TYPE_HISTOGRAM, "gauge"),  # the stale marker of a native histogram
        ("latency_created", Metadata.METRIC_TYPE_HISTOGRAM, "gauge"),
        ("latency_bucket", Metadata.METRIC_TYPE_GAUGEHISTOGRAM, "gauge"),
        ("latency_count", Metadata.METRIC_TYPE_GAUGE, "gauge"),
        ("things_count", Metadata.METRIC_TYPE_UNSPECIFIED, "gauge"),
        ("build_info", Metadata.METRIC_TYPE_INFO, "gauge"),
        ("state", Metadata.METRIC_TYPE_STATESET, "gauge"),
        ("of_later_versions", 8, "gauge"),
    ],
)
def test_a_series_is_what_its_metadata_says(name: str, type_: int, kind: str) -> None:
    """It has its own name; counters are monotonic and cumulative."""
    [metric] = metrics_of(adapt_request(one_sample({"__name__": name}, type_)))
    assert (name, kind) == (metric.name, metric.WhichOneof("data"))
    if kind == "sum":
        assert (2, True) == (metric.sum.aggregation_temporality, metric.sum.is_monotonic)


def test_metadata_describes_its_metric() -> None:
    """Help, unit and type; series of one name that are described otherwise are metrics of their own."""
    request = write_pb2.Request()
    for help_ in ("Requests.", "Requests.", "Other requests."):
        series = add_series(request, {"__name__": "http_total"}, Metadata.METRIC_TYPE_COUNTER, help_, "requests")
        series.samples.add(value=1, timestamp=NOW_MS)
    metrics = metrics_of(adapt_request(request))
    assert [("Requests.", "requests", 2), ("Other requests.", "requests", 1)] == [
        (metric.description, metric.unit, len(metric.sum.data_points)) for metric in metrics
    ]
    [entry] = metrics[0].metadata
    assert ("prometheus.type", "counter") == (entry.key, entry.value.string_value)


@pytest.mark.parametrize(
    ("start_ms", "created_ms", "expected_ms"),
    [
        (NOW_MS - 7, 0, NOW_MS - 7),
        (0, NOW_MS - 8, NOW_MS - 8),
        (NOW_MS - 7, NOW_MS - 8, NOW_MS - 7),
        (0, 0, 0),
        (-1, 0, 0),
        (9_223_372_036_855, 0, 0),
    ],
)
def test_points_count_since_their_start(start_ms: int, created_ms: int, expected_ms: int) -> None:
    """The sample's own start timestamp, or the series' created timestamp; none where the record can't hold it."""
    request = one_sample({"__name__": "http_total"}, Metadata.METRIC_TYPE_COUNTER)
    request.timeseries[0].samples[0].start_timestamp = start_ms
    request.timeseries[0].created_timestamp = created_ms
    series = add_series(request, {"__name__": "latency"}, Metadata.METRIC_TYPE_HISTOGRAM)
    series.histograms.append(histogram(start_timestamp=start_ms))
    custom = histogram(schema=-53, count_int=6, zero_count_int=0, custom_values=[1.0, 2.0], start_timestamp=start_ms)
    custom.positive_spans[0].offset = 0
    series.histograms.append(custom)
    series.created_timestamp = created_ms
    counter, exponential, custom_buckets = metrics_of(adapt_request(request))
    for data in (counter.sum, exponential.exponential_histogram, custom_buckets.histogram):
        [point] = data.data_points
        assert (expected_ms * 10**6, NOW) == (point.start_time_unix_nano, point.time_unix_nano)


@pytest.mark.parametrize("value", [STALE, math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308])
@pytest.mark.parametrize("type_", [Metadata.METRIC_TYPE_GAUGE, Metadata.METRIC_TYPE_COUNTER])
def test_values_keep_their_bits(value: float, type_: int) -> None:
    """Stale markers, NaN, infinities and minus zero come out with the bits they went in with."""
    [metric] = metrics_of(adapt_request(one_sample({"__name__": "up"}, type_, value)))
    [point] = metric.sum.data_points or metric.gauge.data_points
    assert bits(value) == bits(point.as_double)
    assert int(bits(value) == bits(STALE)) == point.flags


@pytest.mark.parametrize(
    ("hint", "temporality", "kept"),
    [("UNSPECIFIED", 2, ""), ("YES", 2, "yes"), ("NO", 2, "no"), ("GAUGE", 0, "")],
)
def test_what_is_hinted_of_resets_is_kept(hint: str, temporality: int, kept: str) -> None:
    """It is beside the type, in the metric's metadata. A gauge histogram has no temporality."""
    request = write_pb2.Request()
    add_series(request, {"__name__": "latency"}).histograms.append(histogram(reset_hint=f"RESET_HINT_{hint}"))
    [metric] = metrics_of(adapt_request(request))
    assert temporality == metric.exponential_histogram.aggregation_temporality
    assert ({"prometheus.reset_hint": kept} if kept else {}) == {e.key: e.value.string_value for e in metric.metadata}


def test_exemplars_without_samples_are_kept() -> None:
    """Prometheus sends them so: one item, a point without a value that holds them, beside its series' others."""
    request = write_pb2.Request()
    series = add_series(request, {"__name__": "latency_bucket"}, Metadata.METRIC_TYPE_HISTOGRAM)
    for moment in (NOW_MS, NOW_MS - 5):
        exemplar = series.exemplars.add(value=0.25, timestamp=moment)
        exemplar.labels_refs.extend(symbol(request, text) for text in ("trace_id", "AB" * 16, "user", "u"))
    adapted = adapt_request(request)
    [point] = metrics_of(adapted)[0].sum.data_points
    assert (1, (0, 0, 2)) == (adapted.accepted_count(), written(adapted))
    assert (NOW, 1, [b"\xab" * 16] * 2) == (point.time_unix_nano, point.flags, [e.trace_id for e in point.exemplars])
    assert ["user", "user"] == [e.filtered_attributes[0].key for e in point.exemplars]
    assert point.as_double != point.as_double


def test_metadata_alone_is_kept() -> None:
    """One item, a point that is none; it is neither a sample nor a histogram."""
    request = write_pb2.Request()
    add_series(request, {"__name__": "http_total", "job": "api"}, Metadata.METRIC_TYPE_COUNTER, "Requests.")
    adapted = adapt_request(request)
    [metric] = metrics_of(adapted)
    [point] = metric.summary.data_points
    assert (1, (0, 0, 0), "Requests.") == (adapted.accepted_count(), written(adapted), metric.description)
    assert (NOW, 1) == (point.time_unix_nano, point.flags)
    assert "api" == batch_of(adapted).records[0].service_id


# What is rejected.


def odd_labels(request: write_pb2.Request) -> None:
    request.timeseries[1].labels_refs.append(0)


def stray_label(request: write_pb2.Request) -> None:
    request.timeseries[1].labels_refs[1] = 99


def stray_help(request: write_pb2.Request) -> None:
    request.timeseries[1].metadata.help_ref = 99


def stray_unit(request: write_pb2.Request) -> None:
    request.timeseries[1].metadata.unit_ref = 2**32 - 1


def both(request: write_pb2.Request) -> None:
    request.timeseries[1].histograms.append(histogram())


def no_name(request: write_pb2.Request) -> None:
    del request.timeseries[1].labels_refs[:]


def empty_name(request: write_pb2.Request) -> None:
    request.timeseries[1].labels_refs[1] = 0


def repeated_label(request: write_pb2.Request) -> None:
    request.timeseries[1].labels_refs.extend(list(request.timeseries[1].labels_refs))


def empty_label_name(request: write_pb2.Request) -> None:
    request.timeseries[1].labels_refs.extend([0, 1])


def long_name(request: write_pb2.Request) -> None:
    request.timeseries[1].labels_refs[1] = symbol(request, "n" * 101)


def too_late(request: write_pb2.Request) -> None:
    request.timeseries[1].samples[0].timestamp = NOW_MS - 90_000_000


def negative_time(request: write_pb2.Request) -> None:
    request.timeseries[1].samples[0].timestamp = -1


def no_time(request: write_pb2.Request) -> None:
    request.timeseries[1].samples[0].timestamp = 0


def odd_exemplar(request: write_pb2.Request) -> None:
    del request.timeseries[1].samples[:]  # else it is stored without
    request.timeseries[1].exemplars.add(timestamp=NOW_MS, labels_refs=[1])


def stray_exemplar(request: write_pb2.Request) -> None:
    del request.timeseries[1].samples[:]  # else it is stored without
    request.timeseries[1].exemplars.add(timestamp=NOW_MS, labels_refs=[1, 99])


def long_exemplar(request: write_pb2.Request) -> None:
    del request.timeseries[1].samples[:]  # else it is stored without
    refs = [symbol(request, "user"), symbol(request, "u" * 121)]
    request.timeseries[1].exemplars.add(timestamp=NOW_MS, labels_refs=refs)


def broken_histogram(request: write_pb2.Request) -> None:
    del request.timeseries[1].samples[:]
    request.timeseries[1].histograms.append(histogram(schema=9))


def nothing(request: write_pb2.Request) -> None:
    del request.timeseries[1].samples[:]


def nothing_but_a_start(request: write_pb2.Request) -> None:
    del request.timeseries[1].samples[:]
    request.timeseries[1].created_timestamp = NOW_MS
    request.timeseries[1].ClearField("metadata")


REJECTIONS: list[tuple[Callable[[write_pb2.Request], None], int, str]] = [
    (odd_labels, errors.INVALID_SERIES, "an odd number of label references: 3"),
    (stray_label, errors.INVALID_SERIES, "a label refers to symbol 99, which is not in the table"),
    (both, errors.INVALID_SERIES, "samples (1) and histograms (1) in one series"),
    (nothing, errors.INVALID_SERIES, "a series without samples, histograms, exemplars and metadata"),
    (nothing_but_a_start, errors.INVALID_SERIES, "a series without samples, histograms, exemplars and metadata"),
    (no_name, errors.MISSING_METRIC_NAME, "label __name__ is missing or empty"),
    (empty_name, errors.MISSING_METRIC_NAME, "label __name__ is missing or empty"),
    (repeated_label, errors.INVALID_LABELS, 'label "__name__" occurs twice'),
    (empty_label_name, errors.INVALID_LABELS, "a label has no name"),
    (long_name, errors.NAME_TOO_LONG, "a name is longer than 100 bytes"),
    (too_late, errors.TIMESTAMP_TOO_OLD, "Timestamp is more than 24h in the past"),
    (negative_time, errors.TIMESTAMP_TOO_OLD, "Timestamp is more than 24h in the past"),
    (no_time, errors.MISSING_TIMESTAMP, "timestamp is required"),
    (odd_exemplar, errors.INVALID_SERIES, "an exemplar: an odd number of label references: 1"),
    (stray_exemplar, errors.INVALID_SERIES, "an exemplar: a label refers to symbol 99, which is not in the table"),
    (long_exemplar, errors.ATTRIBUTE_VALUE_TOO_LONG, "an attribute's value is longer than 120 bytes"),
    (broken_histogram, errors.INVALID_HISTOGRAM, "schema 9 is not -4 to 8 or -53"),
]


@pytest.mark.parametrize(("spoil", "reason", "message"), REJECTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_series_is_rejected_and_no_other(spoil: Callable[[write_pb2.Request], None], reason: int, message: str) -> None:
    """Each of its items, by its own index and in these words; the neighbours are kept, and only they count as written."""
    request = write_pb2.Request()
    for name in ("before", "bad", "after"):
        add_series(request, {"__name__": name}).samples.add(value=1, timestamp=NOW_MS)
    assert [] == reasons(adapt_request(request))
    spoil(request)
    adapted = adapt_request(request)
    rejected = 2 if spoil is both else 1
    assert [(1 + n, reason) for n in range(rejected)] == reasons(adapted)
    assert {message} == {rejection.message for rejection in adapted.rejections}
    assert ["before", "after"] == [metric.name for metric in metrics_of(adapted)]
    assert (2, 0, 0) == written(adapted)


@pytest.mark.parametrize("spoil", [stray_help, stray_unit])
def test_a_help_or_unit_out_of_the_table_is_left_out(spoil: Callable[[write_pb2.Request], None]) -> None:
    """The other, the type and all samples are stored; and it is reported."""
    request = write_pb2.Request()
    for name in ("before", "bad", "after"):
        add_series(request, {"__name__": name}, help_="h", unit="u").samples.add(value=1, timestamp=NOW_MS)
    spoil(request)
    adapted = adapt_request(request)
    assert (3, {repairs.METADATA_DROPPED: 1}) == (adapted.accepted_count(), adapted.repaired)
    bad = metrics_of(adapted)[1]
    assert ("bad", ("", "u") if spoil is stray_help else ("h", "")) == (bad.name, (bad.description, bad.unit))


def test_metadata_of_which_nothing_is_left_is_no_item() -> None:
    request = write_pb2.Request()
    add_series(request, {"__name__": "bad"}).metadata.help_ref = 99
    adapted = adapt_request(request)
    assert ([(0, errors.INVALID_SERIES)], None) == (reasons(adapted), adapted.repaired)


def test_metadata_is_dropped_of_what_is_stored_alone() -> None:
    """A rejected sample is kept as it was sent, with its neighbour of the same series or without."""
    request = write_pb2.Request()
    series = add_series(request, {"__name__": "bad"}, unit="u")
    series.metadata.help_ref = 99
    series.samples.add(value=1, timestamp=1)
    adapted = adapt_request(request)
    assert ([(0, errors.TIMESTAMP_TOO_OLD)], None) == (reasons(adapted), adapted.repaired)
    series.samples.add(value=1, timestamp=NOW_MS)
    adapted = adapt_request(request)
    assert ([(0, errors.TIMESTAMP_TOO_OLD)], {repairs.METADATA_DROPPED: 1}) == (reasons(adapted), adapted.repaired)


def test_the_written_are_those_that_are_kept() -> None:
    """What is too large for a message does not count, nor do its exemplars."""
    request = write_pb2.Request()
    for name in ("small", "n" * 100):
        series = add_series(request, {"__name__": name}, help_="h" * (300 if name != "small" else 1))
        series.samples.add(value=1, timestamp=NOW_MS)
        series.exemplars.add(value=1, timestamp=NOW_MS)
    adapted = adapt(request.SerializeToString(), 400)
    assert [(1, errors.RECORD_TOO_LARGE)] == reasons(adapted)
    assert (1, 0, 1) == written(adapted)


# Bounds.


def bomb(count: int, series: Callable[[write_pb2.Request], None]) -> bytes:
    """A table with a text of a megabyte, and `count` times the same series, which is made of it."""
    request = write_pb2.Request(symbols=["", "x" * (1 << 20)])
    series(request)
    [field] = request.timeseries
    request.ClearField("timeseries")
    payload = field.SerializeToString()
    return request.SerializeToString() + (b"\x2a" + varint(len(payload)) + payload) * count


def of_labels(request: write_pb2.Request) -> None:
    request.timeseries.add(labels_refs=[1, 1] * 200).samples.add(value=1, timestamp=NOW_MS)


def of_help(request: write_pb2.Request) -> None:
    series = add_series(request, {"__name__": "up"})
    series.samples.add(value=1, timestamp=NOW_MS)
    series.metadata.help_ref = 1


def of_exemplars(request: write_pb2.Request) -> None:
    add_series(request, {"__name__": "up"}).exemplars.add(value=1, timestamp=NOW_MS, labels_refs=[1, 1] * 200)


@pytest.mark.parametrize("what", [of_labels, of_exemplars])
def test_references_can_not_blow_a_request_up(what: Callable[[write_pb2.Request], None]) -> None:
    """Bytes that refer to megabytes are refused before those are put together."""
    with pytest.raises(RequestRefused, match="becomes more than 268435456,") as refused:
        adapt(bomb(1, what))
    assert errors.PAYLOAD_TOO_LARGE == refused.value.reason


def test_a_long_help_is_repeated_only_so_often() -> None:
    """Each metric has it, and metrics of two names by turns are many."""
    request = write_pb2.Request()
    for name in ("up", "down"):
        series = add_series(request, {"__name__": name}, help_="x" * (1 << 20))
        series.samples.add(value=1, timestamp=NOW_MS)
    [first, second] = [
        b"\x2a" + varint(len(payload)) + payload for payload in (series.SerializeToString() for series in request.timeseries)
    ]
    request.ClearField("timeseries")
    with pytest.raises(RequestRefused, match="becomes more than 268435456,"):
        adapt(request.SerializeToString() + (first + second) * 200)


def test_symbols_are_bounded() -> None:
    """A table of empty texts, two bytes each, is no way to have memory filled."""
    with pytest.raises(RequestRefused, match=r"^the request has more than 1048576 symbols: send smaller batches$"):
        adapt(b"\x22\x00" * ((1 << 20) + 1))


def test_numbers_of_symbols_belong_to_one_text_for_ever() -> None:
    """A text that is used keeps its number, a forgotten one gets a new one, and the memory is bounded."""
    numbers = SymbolIds(10, 1 << 20)
    used = numbers.add(b"used")
    forgotten = numbers.add(b"forgotten")
    given = {used, forgotten}
    for n in range(100):
        number = numbers.add(b"%d" % n)
        assert number not in given
        given.add(number)
        assert used == numbers.get(b"used")
        assert len(numbers.young) + len(numbers.old) <= 10
    assert 0 == numbers.get(b"forgotten")
    assert numbers.add(b"forgotten") not in given
    small = SymbolIds(1000, 20_000)
    for n in range(100):
        small.add(b"%d" % n * 300)
    assert len(small.young) + len(small.old) < 60
    assert small.get(b"%d" % 0 * 300) == 0
    assert small.add(b"x" * 20_000) > 0
    assert small.get(b"x" * 20_000) == 0


def test_what_is_remembered_of_one_request_serves_the_next() -> None:
    """Another table, in which the same texts are other references, has the same series; and the same references others."""
    first = one_sample({"__name__": "up", "zone": "a"})
    second = write_pb2.Request(symbols=["", "b", "zone", "up", "a", "__name__"])
    second.timeseries.add(labels_refs=[5, 3, 2, 4]).samples.add(value=1, timestamp=NOW_MS)
    third = write_pb2.Request(symbols=["", *["__name__", "down", "zone", "c"]])
    third.timeseries.add(labels_refs=list(first.timeseries[0].labels_refs)).samples.add(value=1, timestamp=NOW_MS)
    for request, name, zone in ((first, "up", "a"), (second, "up", "a"), (third, "down", "c"), (first, "up", "a")):
        [metric] = metrics_of(adapt_request(request))
        [attribute] = metric.gauge.data_points[0].attributes
        assert (name, zone) == (metric.name, attribute.value.string_value)


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    """Beyond its entries or its bytes the oldest generation goes, and what is asked for stays."""
    cache = SeriesCache(10, 1 << 20)
    used = Series()
    cache.put(b"used", used)
    for n in range(100):
        cache.put(b"%d" % n, Series())
        assert cache.get(b"used") is used
        assert len(cache.young) + len(cache.old) <= 10
    assert cache.get(b"0") is None
    small = SeriesCache(1000, 20_000)
    for n in range(100):
        small.put(b"%d" % n * 300, Series())
    assert len(small.young) + len(small.old) < 40
    small.put(b"x" * 20_000, Series())
    assert small.get(b"x" * 20_000) is None


def test_rules_are_asked_anew_of_remembered_series() -> None:
    """A series remembered under one tenant's limits is refused under another's, and taken again under the first's."""
    body = one_sample({"__name__": "m" * 60, "a": "1"}).SerializeToString()
    strict = Limits(
        past_max_s=1,
        future_max_s=1,
        attributes_max=9,
        attribute_key_bytes_max=9,
        attribute_value_bytes_max=99,
        name_bytes_max=50,
    )
    header = Header("acme", SOURCE_PROMETHEUS_WRITE_V2, NOW, BATCH_ID)
    for _ in range(2):
        assert 1 == adapt(body).accepted_count()
        refused = write_v2.adapt(body, header, LimitRules(strict, NOW), MESSAGE_BYTES_MAX)
        assert [(0, errors.NAME_TOO_LONG)] == reasons(refused)
