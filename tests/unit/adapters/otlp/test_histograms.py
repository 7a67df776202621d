"""Buckets of OTLP's histograms that do not fit each other, and sums and histograms without a temporality."""

import math
import tracemalloc
from collections.abc import Callable
from json import dumps
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from support.adapted import batch_of
from support.limits import LOW, LOW_CUMULATIVE
from support.references.otlp import REQUESTS
from support.references.otlp_json import to_json
from support.references.twins import NOW, adapt_otlp

from adapters.codec.text import REST_BYTES
from adapters.codec.wire import Cursor
from adapters.errors import INVALID_HISTOGRAM, RECORD_TOO_LARGE, UNSPECIFIED_TEMPORALITY
from adapters.otlp import json
from adapters.otlp.field_tables import METRIC
from adapters.otlp.scan import Scanner
from adapters.record import Adapted
from adapters.repairs import HISTOGRAM_COUNT_DIFFERS, INFINITE_BOUND, TEMPORALITY_ASSUMED
from collector.ingest.validate import LimitRules


def metric_of(request: Any) -> Any:
    return request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")


def explicit(counts: list[int], bounds: list[float], count: int, flags: int = 0) -> dict[str, Any]:
    return {"bucket_counts": counts, "explicit_bounds": bounds, "count": count, "flags": flags}


def adapt_explicit(point: dict[str, Any]) -> Adapted:
    """Between two that fit."""
    request = REQUESTS["metrics"]()
    histogram = metric_of(request).histogram
    histogram.aggregation_temporality = 2
    for each in (explicit([1, 2], [0.5], 3), point, explicit([], [], 7)):
        histogram.data_points.add(time_unix_nano=NOW, **each)
    return adapt_otlp("metrics", request.SerializeToString())


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (explicit([1, 2], [1.0, 2.0, 3.0], 3), "2 bucket counts do not fit 3 explicit bounds: there must be one more"),
        (explicit([1], [2.0, math.inf], 3), "1 bucket counts do not fit 2 explicit bounds: there must be one more"),
        (explicit([1, 2], [1.0, 2.0], 3), "2 bucket counts do not fit 2 explicit bounds: there must be one more"),
        (explicit([], [1.0], 3), "0 bucket counts do not fit 1 explicit bounds: there must be one more"),
        (explicit([1, 2], [], 3), "2 bucket counts do not fit 0 explicit bounds: there must be one more"),
        (explicit([1, 2, 3], [2.0, 1.0], 6), "the explicit bounds do not ascend"),
        (explicit([1, 2, 3], [1.0, 1.0], 6), "the explicit bounds do not ascend"),
        (explicit([1, 2], [math.nan], 3), "the explicit bounds do not ascend"),
    ],
)
def test_histograms_that_do_not_fit_are_rejected_one_by_one(point: dict[str, Any], message: str) -> None:
    """The message has the numbers, and their neighbours are kept."""
    adapted = adapt_explicit(point)
    assert [(1, INVALID_HISTOGRAM, message)] == [(found.index, found.reason, found.message) for found in adapted.rejections]
    assert 2 == adapted.accepted_count()


def as_json(body: bytes) -> bytes:
    """The same request in OTLP/JSON, through the collector's reader."""
    return json.metrics_to_wire(dumps(to_json(ExportMetricsServiceRequest.FromString(body))).encode())


@pytest.mark.parametrize("form", [bytes, as_json], ids=["protobuf", "json"])
@pytest.mark.parametrize(
    "point",
    [
        explicit([1, 2], [1.0], 4),
        explicit([1, 2], [1.0], 2),
        explicit([2**63, 2**63], [1.0], 0),  # 2**64 in all
        explicit([2**64 - 1, 0], [1.0], 1),
    ],
)
def test_counts_that_do_not_add_up_are_kept_as_they_came(point: dict[str, Any], form: Callable[[bytes], bytes]) -> None:
    """The answer has a note, and every number is stored as it was sent."""
    request = REQUESTS["metrics"]()
    histogram = metric_of(request).histogram
    histogram.aggregation_temporality = 2
    for each in (explicit([1, 2], [0.5], 3), point):
        histogram.data_points.add(time_unix_nano=NOW, **each)
    adapted = adapt_otlp("metrics", form(request.SerializeToString()))
    assert (2, [], {HISTOGRAM_COUNT_DIFFERS: 1}) == (adapted.accepted_count(), adapted.rejections, adapted.repaired)
    [record] = batch_of(adapted).records
    assert [histogram] == [metric.histogram for metric in record.metrics]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("form", [bytes, as_json], ids=["protobuf", "json"])
@pytest.mark.parametrize(
    ("counts", "bounds", "expected"),
    [
        ([1, 2], [0.5, math.inf], ([1, 2], [0.5])),
        ([1, 2, 0], [0.5, math.inf], ([1, 2], [0.5])),
        ([3], [math.inf], ([3], [])),
        ([3, 0], [math.inf], ([3], [])),
        ([1, 1, 1], [0.5, math.inf], ([1, 1, 1], [0.5, math.inf])),  # an observation that is in no other bucket
    ],
)
def test_bounds_that_end_with_infinity(
    counts: list[int], bounds: list[float], expected: tuple[list[int], list[float]], form: Callable[[bytes], bytes], twice: bool
) -> None:
    """It is left out, and a count of 0 behind it; also where a key comes twice, so that all of the point is written anew."""
    request = REQUESTS["metrics"]()
    histogram = metric_of(request).histogram
    histogram.aggregation_temporality = 2
    for each in (explicit([1, 2], [0.5], 3), explicit(counts, bounds, 3), explicit([], [], 7)):
        point = histogram.data_points.add(time_unix_nano=NOW, **each)
        for n in range(1 + twice):
            point.attributes.add(key="a").value.string_value = f"{n}"
        point.exemplars.add(time_unix_nano=NOW)
    adapted = adapt_otlp("metrics", form(request.SerializeToString()))
    is_changed = expected != (counts, bounds)
    assert (3, [], {INFINITE_BOUND: 1} if is_changed else None) == (
        adapted.accepted_count(),
        adapted.rejections,
        adapted.repaired,
    )
    first, second, third = batch_of(adapted).records[0].metrics[0].histogram.data_points
    assert expected == (list(second.bucket_counts), list(second.explicit_bounds))
    assert (histogram.data_points[0].bucket_counts, []) == (first.bucket_counts, list(third.bucket_counts))
    assert [1 + len(point.exemplars) for point in (first, second, third)] == [2, 2, 2]


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 0]])
def test_infinity_is_left_out_however_the_point_is_written(counts: list[int]) -> None:
    """Fields in another order, and others between them."""
    request = REQUESTS["metrics"]()
    histogram = metric_of(request).histogram
    histogram.aggregation_temporality = 2
    point = histogram.data_points.add(time_unix_nano=NOW, count=3)
    point.attributes.add(key="a").value.string_value = "v"
    rest = point.SerializeToString()
    counts_field = type(point)(bucket_counts=counts).SerializeToString()
    bounds_field = type(point)(explicit_bounds=[0.5, math.inf]).SerializeToString()
    for parts in ([bounds_field, rest, counts_field], [counts_field, rest, bounds_field], [rest, bounds_field, counts_field]):
        written = b"".join(parts)
        data = bytes((0x0A, len(written))) + written + b"\x10\x02"
        metric = b"\x0a\x01m" + bytes((0x4A, len(data))) + data
        scope = bytes((0x12, len(metric))) + metric
        resource = bytes((0x12, len(scope))) + scope
        adapted = adapt_otlp("metrics", bytes((0x0A, len(resource))) + resource)
        assert (1, {INFINITE_BOUND: 1}) == (adapted.accepted_count(), adapted.repaired)
        [stored] = batch_of(adapted).records[0].metrics[0].histogram.data_points
        assert ([1, 2], [0.5]) == (list(stored.bucket_counts), list(stored.explicit_bounds))


@pytest.mark.parametrize(
    "point",
    [
        explicit([3], [], 3),
        explicit([1, 2, 3], [-math.inf, math.inf], 6),
        explicit([2**64 - 1, 0], [1.0], 2**64 - 1),
        explicit([1, 2], [3.0, 1.0], 9, flags=1),  # no recorded value
    ],
)
def test_histograms_that_fit_are_kept(point: dict[str, Any]) -> None:
    """One bucket without bounds, infinite bounds, the largest count, and whatever is flagged as having no value."""
    adapted = adapt_explicit(point)
    assert (3, None) == (adapted.accepted_count(), adapted.repaired or None)


@pytest.mark.parametrize("form", [bytes, as_json], ids=["protobuf", "json"])
@pytest.mark.parametrize(
    ("positive", "negative", "zero_count", "count", "notes"),
    [
        ([1, 2], [3], 4, 10, 0),
        ([1, 2], [3], 4, 9, 1),
        ([2**64 - 1], [], 0, 2**64 - 1, 0),
        ([2**64 - 1, 1], [], 0, 0, 1),
        ([], [], 0, 5, 0),  # no buckets were sent
    ],
)
def test_exponential_histograms_that_do_not_add_up_are_kept(
    positive: list[int], negative: list[int], zero_count: int, count: int, notes: int, form: Callable[[bytes], bytes]
) -> None:
    """The buckets of both sides and that of zero are the count, or the answer says that they are not."""
    request = REQUESTS["metrics"]()
    histogram = metric_of(request).exponential_histogram
    histogram.aggregation_temporality = 1
    point = histogram.data_points.add(time_unix_nano=NOW, count=count, zero_count=zero_count)
    point.positive.bucket_counts.extend(positive)
    point.negative.bucket_counts.extend(negative)
    adapted = adapt_otlp("metrics", form(request.SerializeToString()))
    assert (1, notes) == (adapted.accepted_count(), (adapted.repaired or {}).get(HISTOGRAM_COUNT_DIFFERS, 0))
    [record] = batch_of(adapted).records
    assert [histogram] == [metric.exponential_histogram for metric in record.metrics]


@pytest.mark.parametrize("kind", ["sum", "histogram", "exponential_histogram"])
@pytest.mark.parametrize("message_bytes_max", [1 << 20, 350])
@pytest.mark.parametrize("zero", [b"", b"\x10\x00"])  # left out, or written out
def test_no_temporality_is_stored_as_cumulative(kind: str, message_bytes_max: int, zero: bytes) -> None:
    """It is so in one message or in pieces, with a note. If the limits say so, it is rejected."""
    request = REQUESTS["metrics"]()
    data = getattr(metric_of(request), kind)
    for _ in range(40):
        data.data_points.add(time_unix_nano=NOW, count=0) if kind != "sum" else data.data_points.add(
            time_unix_nano=NOW, as_int=5
        )
    data.MergeFromString(zero)
    body = request.SerializeToString()
    adapted = adapt_otlp("metrics", body, message_bytes_max, limits=LOW_CUMULATIVE)
    assert (40, {TEMPORALITY_ASSUMED: 1}) == (adapted.accepted_count(), adapted.repaired)
    stored = [getattr(metric, kind) for record in batch_of(adapted).records for metric in record.metrics]
    assert {2} == {each.aggregation_temporality for each in stored}
    assert 40 == sum(len(each.data_points) for each in stored)
    assert (len(stored) > 1) == (message_bytes_max == 350)
    refused = adapt_otlp("metrics", body, message_bytes_max, limits=LOW)
    assert ({UNSPECIFIED_TEMPORALITY}, None) == ({each.reason for each in refused.rejections}, refused.repaired or None)


def test_a_temporality_that_there_is_not_is_rejected() -> None:
    """It says something that is not known here."""
    request = REQUESTS["metrics"]()
    sum_ = metric_of(request).sum
    sum_.aggregation_temporality = 3
    sum_.data_points.add(time_unix_nano=NOW, as_int=5)
    adapted = adapt_otlp("metrics", request.SerializeToString(), limits=LOW_CUMULATIVE)
    assert [UNSPECIFIED_TEMPORALITY] == [each.reason for each in adapted.rejections]


BOUNDS = 4 * REST_BYTES // 8


def many_buckets(kind: str) -> bytes:
    """A point whose counts, and whose bounds, are each a megabyte."""
    request = REQUESTS["metrics"]()
    data = getattr(metric_of(request), kind)
    data.aggregation_temporality = 2
    point = data.data_points.add(time_unix_nano=NOW)
    if kind == "histogram":
        point.explicit_bounds.extend(range(BOUNDS))
        point.bucket_counts.extend([0] * (BOUNDS + 1))
    else:
        point.positive.bucket_counts.extend([0] * (4 * REST_BYTES))
    body: bytes = request.SerializeToString()
    return body


@pytest.mark.parametrize("kind", ["histogram", "exponential_histogram"])
def test_many_buckets_are_checked_with_rests(kind: str) -> None:
    """Each loop over them rests once for each 256 KiB."""
    rests: list[None] = []
    rules = LimitRules(LOW, NOW, pause=lambda: rests.append(None))
    scanned = Scanner(Cursor(body := many_buckets(kind)), rules)
    message = METRIC.children[0x4A if kind == "histogram" else 0x52].children[0x0A]
    start = body.index(b"\x19" + NOW.to_bytes(8, "little"))
    scanned.begin()
    scanned.scan(message, start, len(body) - 2)  # behind it is the temporality
    before = len(rests)
    assert before >= (0 if kind == "histogram" else 3)
    scanned.histogram_reason()
    assert len(rests) - before >= (6 if kind == "histogram" else 0)


@pytest.mark.large
@pytest.mark.parametrize("last", [math.inf, 1e300])
def test_a_point_that_is_too_large_is_not_copied(last: float) -> None:
    """It is rejected by its size alone, before and behind what is cut of its bounds."""
    request = ExportMetricsServiceRequest.FromString(many_buckets("histogram"))
    [metric] = request.resource_metrics[0].scope_metrics[0].metrics
    metric.histogram.data_points[0].explicit_bounds[-1] = last
    for metadata in ((), ("k", "k")):
        del metric.metadata[:]
        for key in metadata:
            metric.metadata.add(key=key)
        body = request.SerializeToString()
        tracemalloc.start()
        try:
            adapted = adapt_otlp("metrics", body, 64 << 10)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [RECORD_TOO_LARGE] == [each.reason for each in adapted.rejections]
        # What is cut is made anew, in two copies of a half each.
        assert peak < len(body) * (3.5 if last == math.inf else 0.5)
