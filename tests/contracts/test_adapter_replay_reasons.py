"""Each reason for which each adapter rejects an item: what is kept of it, and what that is when it is sent again.

The items are between good ones. What no rule can lift is rejected again, in the same words; all else is stored as its twin
says that it would be by itself.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from google.protobuf.message import Message
from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from support.limits import ALL, DEFAULT, LOW, LOW_BUT_ROWS
from support.references import native as native_reference
from support.references import otlp, prometheus
from support.references.replaying import BATCH_ID, BYTES_MAX, NOW, Adapter, check_again, check_replays, items_of, run

from adapters import errors
from adapters.errors import INVALID_JSON, REASON
from adapters.native import request as native
from adapters.otlp import json as otlp_json
from adapters.otlp import logs, metrics, traces
from adapters.prometheus import write_v1, write_v2
from adapters.record import SOURCE_NATIVE, SOURCE_OTLP, SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2, Rejection

HEADER: dict[str, Any] = {"tenant_id": "acme", "received_time_unix_nano": NOW, "batch_id": BATCH_ID}
NOW_MS = NOW // 10**6
TWO_DAYS = 2 * 86_400 * 10**9
FITS = 1 << 20

OTLP = {
    "logs": Adapter(SOURCE_OTLP, logs.adapt, logs.adapt),
    "metrics": Adapter(SOURCE_OTLP, metrics.adapt, metrics.adapt),
    "traces": Adapter(SOURCE_OTLP, traces.adapt, traces.adapt),
}
WRITE_V1 = Adapter(SOURCE_PROMETHEUS_WRITE_V1, write_v1.adapt, write_v1.adapt)
WRITE_V2 = Adapter(SOURCE_PROMETHEUS_WRITE_V2, write_v2.adapt, write_v2.adapt)
NATIVE = Adapter(SOURCE_NATIVE, partial(native.adapt_batch, batch_items_max=100), native.adapt)


def replay(adapter: Adapter, rejection: Rejection) -> Counter[bytes]:
    """The one item that the payload is where everything is allowed."""
    adapted = run(adapter, adapter.alone, rejection.payload, ALL, BYTES_MAX)
    assert (1, 0) == (adapted.accepted_count(), adapted.rejected_count())
    return items_of(adapted)


# OTLP


def otlp_request(signal: str) -> Any:
    """Three items of one metric, one scope and one resource, each of which has all that it can have."""
    request: Any = otlp.REQUESTS[signal]()
    of = "spans" if signal == "traces" else signal
    entry = getattr(request, f"resource_{of}").add(schema_url="https://resource")
    entry.resource.attributes.add(key="host.cpus").value.int_value = 8
    entry.resource.attributes.add(key="service.name").value.string_value = "payment-api"
    scope = getattr(entry, f"scope_{of}").add(schema_url="https://scope")
    scope.scope.name = "lib"
    scope.scope.attributes.add(key="lang").value.string_value = "go"
    if signal == "metrics":
        metric = scope.metrics.add(name="requests", unit="1", description="How many.")
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = 2
        metric.metadata.add(key="m").value.int_value = 7
    for n in range(3):
        if signal == "metrics":
            item = scope.metrics[0].sum.data_points.add(time_unix_nano=NOW, as_int=n)
        elif signal == "logs":
            item = scope.log_records.add(time_unix_nano=NOW, severity_text="INFO", trace_id=b"short")
            item.body.int_value = n
        else:
            item = scope.spans.add(
                trace_id=b"t" * 16, span_id=b"s" * 8, name=f"GET /{n}", start_time_unix_nano=NOW, end_time_unix_nano=NOW + n
            )
        item.attributes.add(key="n").value.int_value = n
    return request


class Parts:
    """The messages of such a request."""

    def __init__(self, signal: str, request: Any) -> None:
        of = "spans" if signal == "traces" else signal
        entry = getattr(request, f"resource_{of}")[0]
        scope = getattr(entry, f"scope_{of}")[0]
        self.resource = entry.resource
        self.scope = scope.scope
        self.metric: Any = scope.metrics[0] if signal == "metrics" else None
        self.items = {
            "metrics": lambda: scope.metrics[0].sum.data_points,
            "logs": lambda: scope.log_records,
            "traces": lambda: scope.spans,
        }[signal]()


def attribute(message: Any, key: str, value: str) -> None:
    message.attributes.add(key=key).value.string_value = value


def set_time(of: Parts, time: int) -> None:
    item = of.items[1]
    item.ClearField("time_unix_nano" if hasattr(item, "time_unix_nano") else "end_time_unix_nano")
    setattr(item, "time_unix_nano" if hasattr(item, "time_unix_nano") else "start_time_unix_nano", time)


Spoil = Callable[[Parts], Any]
EVERY = ("logs", "metrics", "traces")
# Signals, which items it rejects, the reason, whether a rule can lift it, and how an item is spoilt.
OTLP_CASES: list[tuple[tuple[str, ...], list[int], int, bool, Spoil]] = [
    (EVERY, [1], errors.TIMESTAMP_TOO_OLD, True, lambda of: set_time(of, NOW - TWO_DAYS)),
    (EVERY, [1], errors.TIMESTAMP_IN_FUTURE, True, lambda of: set_time(of, NOW + TWO_DAYS)),
    (EVERY, [1], errors.TIMESTAMP_IN_FUTURE, False, lambda of: set_time(of, 2**64 - 1)),
    (("metrics", "traces"), [1], errors.MISSING_TIMESTAMP, False, lambda of: set_time(of, 0)),
    (EVERY, [1], errors.ATTRIBUTE_KEY_TOO_LONG, True, lambda of: attribute(of.items[1], "k" * 101, "v")),
    (EVERY, [0, 1, 2], errors.ATTRIBUTE_KEY_TOO_LONG, True, lambda of: attribute(of.resource, "k" * 101, "v")),
    (EVERY, [1], errors.ATTRIBUTE_VALUE_TOO_LONG, True, lambda of: attribute(of.items[1], "k", "v" * 121)),
    (EVERY, [0, 1, 2], errors.ATTRIBUTE_VALUE_TOO_LONG, True, lambda of: attribute(of.scope, "k", "v" * 121)),
    (
        ("metrics",),
        [0, 1, 2],
        errors.ATTRIBUTE_VALUE_TOO_LONG,
        True,
        lambda of: of.metric.metadata.add(key="k", value=AnyValue(string_value="v" * 121)),
    ),
    (
        ("traces",),
        [1],
        errors.ATTRIBUTE_VALUE_TOO_LONG,
        True,
        lambda of: attribute(of.items[1].events.add(), "k", "v" * 121),
    ),
    (("traces",), [1], errors.ATTRIBUTE_KEY_TOO_LONG, True, lambda of: attribute(of.items[1].links.add(), "k" * 101, "v")),
    (EVERY, [0, 1, 2], errors.NAME_TOO_LONG, True, lambda of: setattr(of.scope, "name", "n" * 101)),
    (
        EVERY,
        [0, 1, 2],
        errors.NAME_TOO_LONG,
        True,
        lambda of: setattr(of.resource.attributes[1].value, "string_value", "n" * 101),
    ),
    (("metrics",), [0, 1, 2], errors.NAME_TOO_LONG, True, lambda of: setattr(of.metric, "name", "n" * 101)),
    (("traces",), [1], errors.NAME_TOO_LONG, True, lambda of: setattr(of.items[1], "name", "n" * 101)),
    (("traces",), [1], errors.NAME_TOO_LONG, True, lambda of: of.items[1].events.add(name="n" * 101)),
    (("logs",), [1], errors.NAME_TOO_LONG, True, lambda of: setattr(of.items[1], "event_name", "n" * 101)),
    (("metrics",), [0, 1, 2], errors.UNSPECIFIED_TEMPORALITY, False, lambda of: of.metric.sum.ClearField(TEMPORALITY)),
    (("traces",), [1], errors.INVALID_TRACE_ID, False, lambda of: setattr(of.items[1], "trace_id", bytes(16))),
    (("traces",), [1], errors.INVALID_SPAN_ID, False, lambda of: setattr(of.items[1], "span_id", b"short")),
]
TEMPORALITY = "aggregation_temporality"
OTLP_CASES_BY_SIGNAL = [(signal, *case[1:]) for case in OTLP_CASES for signal in case[0]]


def alone(signal: str, request: Message, n: int) -> Message:
    """The same request with its item `n` only."""
    lone = type(request)()
    lone.CopyFrom(request)
    items = Parts(signal, lone).items
    del items[n + 1 :]
    del items[:n]
    return lone


def check_otlp(
    signal: str, request: Message, indices: list[int], reason: int, *, lifted: bool, message_bytes_max: int
) -> list[Rejection]:
    """Exactly these items are rejected; each payload is the request with this item only, and is stored as its twin has it."""
    adapter = OTLP[signal]
    adapted = check_replays(adapter, request.SerializeToString(), message_bytes_max)
    assert [(n, reason) for n in indices] == [(rejection.index, rejection.reason) for rejection in adapted.rejections]
    for rejection in adapted.rejections:
        lone = alone(signal, request, rejection.index)
        assert lone == type(request).FromString(rejection.payload)
        if lifted:
            _, expected = otlp.reference(signal, lone.SerializeToString(), ALL, NOW, {**HEADER, "source": 2})
            assert Counter(otlp.single_items(expected)) == replay(adapter, rejection)
    return adapted.rejections


@pytest.mark.parametrize(("signal", "indices", "reason", "lifted", "spoil"), OTLP_CASES_BY_SIGNAL)
def test_an_otlp_item_is_kept_with_all_that_it_is_under(
    signal: str, indices: list[int], reason: int, lifted: bool, spoil: Spoil
) -> None:
    """Resource, scope, schema URLs, and the metric's own fields, as they were sent."""
    request = otlp_request(signal)
    of = Parts(signal, request)
    spoil(of)
    rejections = check_otlp(signal, request, indices, reason, lifted=lifted, message_bytes_max=FITS)
    service = of.resource.attributes[1].value.string_value
    assert {service.encode() if len(service) <= 100 else b""} == {rejection.service_id for rejection in rejections}


@pytest.mark.parametrize("signal", EVERY)
def test_an_otlp_item_too_large_for_a_message_is_kept(signal: str) -> None:
    """One of three, and all of them where it is the resource that is too large."""
    request = otlp_request(signal)
    for n in range(20):
        Parts(signal, request).items[1].attributes.add(key=f"{n}").value.string_value = "v" * 100
    wide = OTLP[signal]
    adapted = run(wide, wide.whole, request.SerializeToString(), ALL, 1_000)
    assert [(1, errors.RECORD_TOO_LARGE)] == [(rejection.index, rejection.reason) for rejection in adapted.rejections]
    assert alone(signal, request, 1) == type(request).FromString(adapted.rejections[0].payload)
    assert 1 == sum(replay(wide, adapted.rejections[0]).values())

    request = otlp_request(signal)
    Parts(signal, request).resource.attributes.add(key="big").value.string_value = "v" * 100
    check_otlp(signal, request, [0, 1, 2], errors.RECORD_TOO_LARGE, lifted=True, message_bytes_max=260)


@pytest.mark.parametrize("signal", EVERY)
def test_an_otlp_item_nested_too_deep_is_kept(signal: str) -> None:
    """It is kept to the byte: protobuf's own parser could not read it, ours reports once more why it is refused."""
    request = otlp_request(signal)
    of = Parts(signal, request)
    value = of.items[1].attributes.add(key="deep").value
    for _ in range(65):
        value = value.array_value.values.add()
    adapter = OTLP[signal]
    adapted = run(adapter, adapter.whole, request.SerializeToString(), DEFAULT, FITS)
    assert [(1, errors.NESTED_TOO_DEEP)] == [(r.index, r.reason) for r in adapted.rejections]
    for rejection in adapted.rejections:
        check_again(adapter, rejection, DEFAULT, FITS)
        assert len(alone(signal, request, rejection.index).SerializeToString()) == len(rejection.payload)
        for part in (of.resource, of.scope, of.items[rejection.index]):
            assert part.SerializeToString() in rejection.payload
        assert b"payment-api" == rejection.service_id


def test_a_service_that_is_no_string_is_unknown_where_its_resource_is_refused() -> None:
    """What may be nested too deep is not read."""
    request = otlp_request("logs")
    of = Parts("logs", request)
    del of.resource.attributes[:]
    value = of.resource.attributes.add(key="service.name").value
    for _ in range(300):
        value = value.array_value.values.add()
    adapted = run(OTLP["logs"], logs.adapt, request.SerializeToString(), LOW, FITS)
    assert [b"unknown_service"] * 3 == [rejection.service_id for rejection in adapted.rejections]


def test_otlp_json_is_kept_as_protobuf() -> None:
    """The request that the JSON means."""
    body = json.dumps(
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "web"}}]},
                    "scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"intValue": "5"}}]}],
                    "schemaUrl": "https://resource",
                }
            ]
        }
    ).encode()
    wire = otlp_json.logs_to_wire(body)
    [rejection] = check_replays(OTLP["logs"], wire, FITS).rejections
    request = otlp.REQUESTS["logs"].FromString(wire)
    assert request == otlp.REQUESTS["logs"].FromString(rejection.payload)
    assert b"web" == rejection.service_id


# Remote write 1.0


def write_request(labels: dict[str, str]) -> write_pb2.WriteRequest:
    """One series with two samples, two histograms and an exemplar each, between two others; metadata of two families."""
    request = write_pb2.WriteRequest()
    for number, entries in enumerate(({"__name__": "up", "job": "a"}, labels, {"__name__": "up", "job": "a"})):
        series = request.timeseries.add()
        for name, value in entries.items():
            series.labels.add(name=name, value=value)
        if number != 1:
            series.samples.add(value=1, timestamp=NOW_MS)
            continue
        for n in range(4):
            if n < 2:
                series.samples.add(value=n, timestamp=NOW_MS + n)
            else:
                histogram = series.histograms.add(count_int=3, sum=1.5, schema=3, timestamp=NOW_MS + n)
                histogram.positive_spans.add(offset=1, length=2)
                histogram.positive_deltas.extend([2, -1])
            exemplar = series.exemplars.add(value=n, timestamp=NOW_MS + n)
            exemplar.labels.add(name="trace_id", value="ab" * 16)
    request.metadata.add(metric_family_name="latency", type=2, help="How long.", unit="seconds")
    request.metadata.add(metric_family_name="up", help="Whether.")
    return request


def lone_series(request: write_pb2.WriteRequest, n: int, family: str) -> write_pb2.WriteRequest:
    """The request with item `n` of its second series only: of the two samples, two histograms."""
    lone = write_pb2.WriteRequest()
    sent = request.timeseries[1]
    series = lone.timeseries.add()
    series.labels.extend(sent.labels)
    if n < 2:
        series.samples.append(sent.samples[n])
    else:
        series.histograms.append(sent.histograms[n - 2])
    series.exemplars.append(sent.exemplars[n])
    lone.metadata.extend(entry for entry in request.metadata if entry.metric_family_name == family)
    return lone


LATENCY = {"__name__": "latency_sum", "job": "api", "instance": "a:1", "code": "200"}
ALL_FOUR = [0, 1, 2, 3]
WRITE_CASES: list[tuple[dict[str, str], list[int], int, bool, Callable[[write_pb2.TimeSeries], Any]]] = [
    ({"job": "api"}, ALL_FOUR, errors.MISSING_METRIC_NAME, False, lambda _: None),
    (LATENCY | {"": "x"}, ALL_FOUR, errors.INVALID_LABELS, False, lambda _: None),
    (LATENCY, ALL_FOUR, errors.INVALID_LABELS, False, lambda series: series.labels.add(name="code", value="200")),
    (LATENCY | {"__name__": "n" * 101}, ALL_FOUR, errors.NAME_TOO_LONG, True, lambda _: None),
    (LATENCY | {"job": "n" * 101}, ALL_FOUR, errors.NAME_TOO_LONG, True, lambda _: None),
    (LATENCY | dict.fromkeys("abc", "v"), ALL_FOUR, errors.TOO_MANY_ATTRIBUTES, True, lambda _: None),
    (LATENCY | {"k" * 101: "v"}, ALL_FOUR, errors.ATTRIBUTE_KEY_TOO_LONG, True, lambda _: None),
    (LATENCY | {"k": "v" * 121}, ALL_FOUR, errors.ATTRIBUTE_VALUE_TOO_LONG, True, lambda _: None),
    (LATENCY, [1], errors.TIMESTAMP_TOO_OLD, True, lambda series: move(series, 1, -TWO_DAYS // 10**6)),
    (LATENCY, [3], errors.TIMESTAMP_TOO_OLD, True, lambda series: move(series, 3, -TWO_DAYS // 10**6)),
    (LATENCY, [1], errors.TIMESTAMP_TOO_OLD, False, lambda series: move(series, 1, -NOW_MS - 5)),
    (LATENCY, [1], errors.TIMESTAMP_IN_FUTURE, True, lambda series: move(series, 1, TWO_DAYS // 10**6)),
    (LATENCY, [1], errors.TIMESTAMP_IN_FUTURE, False, lambda series: move(series, 1, 2**62)),
    (LATENCY, [1], errors.MISSING_TIMESTAMP, False, lambda series: move(series, 1, -NOW_MS - 1)),
    (LATENCY, [3], errors.INVALID_HISTOGRAM, False, lambda series: series.histograms[1].positive_deltas.append(1)),
    (LATENCY, [2], errors.INVALID_HISTOGRAM, False, lambda series: setattr(series.histograms[0], "schema", 9)),
]


def move(series: write_pb2.TimeSeries, n: int, by_ms: int) -> None:
    """Item `n` and its exemplar."""
    item: Any = series.samples[n] if n < 2 else series.histograms[n - 2]
    item.timestamp += by_ms
    series.exemplars[n].timestamp += by_ms


@pytest.mark.parametrize(("labels", "indices", "reason", "lifted", "spoil"), WRITE_CASES)
def test_a_remote_write_item_is_kept_with_its_labels_exemplars_and_metadata(
    labels: dict[str, str],
    indices: list[int],
    reason: int,
    lifted: bool,
    spoil: Callable[[write_pb2.TimeSeries], Any],
) -> None:
    """A request of one series; its metadata is its family's alone."""
    request = write_request(labels)
    spoil(request.timeseries[1])
    adapted = check_replays(WRITE_V1, request.SerializeToString(), FITS)
    assert [(1 + n, reason) for n in indices] == [(rejection.index, rejection.reason) for rejection in adapted.rejections]
    job = labels["job"].encode()
    for rejection in adapted.rejections:
        lone = lone_series(request, rejection.index - 1, "latency" if labels.get("__name__") == "latency_sum" else "")
        assert lone == write_pb2.WriteRequest.FromString(rejection.payload)
        assert (job if len(job) <= 100 else b"") == rejection.service_id
        if lifted:
            expected = prometheus.reference(lone, ALL, NOW, HEADER).batch
            assert Counter(otlp.single_items(expected)) == replay(WRITE_V1, rejection)


def test_exemplars_without_samples_are_kept_together() -> None:
    """They are one item; a series without a job is of an unknown service."""
    request = write_pb2.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="latency_bucket")
    for n in range(3):
        series.exemplars.add(value=n, timestamp=NOW_MS - TWO_DAYS // 10**6 + n)
    [rejection] = check_replays(WRITE_V1, request.SerializeToString(), FITS).rejections
    assert request == write_pb2.WriteRequest.FromString(rejection.payload)
    assert (errors.TIMESTAMP_TOO_OLD, b"unknown_service") == (rejection.reason, rejection.service_id)
    assert 1 == sum(replay(WRITE_V1, rejection).values())


@pytest.mark.parametrize("n", ALL_FOUR)
def test_a_remote_write_item_too_large_for_a_message_is_kept(n: int) -> None:
    """It is kept with the exemplar that makes it too large; what is around it is stored."""
    request = write_request(LATENCY)
    for index in range(3):
        request.timeseries[1].exemplars[n].labels.add(name=f"l{index}", value="v" * 100)
    adapted = check_replays(WRITE_V1, request.SerializeToString(), 400)
    [rejection] = adapted.rejections
    assert (1 + n, errors.RECORD_TOO_LARGE, b"api") == (rejection.index, rejection.reason, rejection.service_id)
    assert lone_series(request, n, "latency") == write_pb2.WriteRequest.FromString(rejection.payload)
    assert 5 == adapted.accepted_count()


@pytest.mark.parametrize(("name", "reason"), [("n" * 101, errors.NAME_TOO_LONG), ("", errors.MISSING_METRIC_NAME)])
def test_metadata_is_kept_alone(name: str, reason: int) -> None:
    """Metadata is kept as it was sent, without that of other families."""
    request = write_request(LATENCY)
    request.metadata.add(metric_family_name=name, type=1, help="How many.", unit="1")
    [rejection] = check_replays(WRITE_V1, request.SerializeToString(), FITS).rejections
    assert (6, reason, b"unknown_service") == (rejection.index, rejection.reason, rejection.service_id)
    assert write_pb2.WriteRequest(metadata=request.metadata[2:]) == write_pb2.WriteRequest.FromString(rejection.payload)


def test_metadata_too_large_for_a_message_is_kept() -> None:
    """It is kept as an item of its own, and with an item of its family, which it makes too large."""
    request = write_request(LATENCY)
    request.metadata[0].help = "h" * 500
    request.metadata.add(metric_family_name="other", help="h" * 500)
    rejections = check_replays(WRITE_V1, request.SerializeToString(), 400).rejections
    assert [(1 + n, errors.RECORD_TOO_LARGE) for n in ALL_FOUR] + [(6, errors.RECORD_TOO_LARGE)] == [
        (rejection.index, rejection.reason) for rejection in rejections
    ]
    assert write_pb2.WriteRequest(metadata=request.metadata[2:]) == write_pb2.WriteRequest.FromString(rejections[4].payload)


def test_a_histogram_refused_for_what_others_took_is_taken_alone() -> None:
    """The bound on empty buckets is a request's; a payload is a request of its own."""
    request = write_pb2.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="latency")
    for _ in range(80):
        histogram = series.histograms.add(count_int=2, sum=1, schema=0, timestamp=NOW_MS)
        histogram.positive_spans.add(offset=1, length=1)
        histogram.positive_spans.add(offset=60_000, length=1)
        histogram.positive_deltas.extend([1, 0])
    adapted = run(WRITE_V1, write_v1.adapt, request.SerializeToString(), LOW, FITS)
    assert {errors.INVALID_HISTOGRAM} == {rejection.reason for rejection in adapted.rejections}
    for rejection in adapted.rejections:
        assert 1 == sum(replay(WRITE_V1, rejection).values())


# Remote write 2.0


def write_request_v2(kind: str) -> write_v2_pb2.Request:
    """One series with two samples or histograms and an exemplar each, described, between two others; more symbols than a byte
    refers to."""
    request = write_v2_pb2.Request(symbols=["", *(f"unused {n}" for n in range(200))])
    for number, name in enumerate(("up", "latency", "up")):
        series = request.timeseries.add(created_timestamp=NOW_MS - 9)
        for text in ("__name__", name, "job", "api", "code", "200"):
            series.labels_refs.append(ref_of(request, text))
        metadata: Any = series.metadata
        metadata.type = 2
        metadata.help_ref = ref_of(request, f"What {name} is.")
        metadata.unit_ref = ref_of(request, "seconds")
        if number != 1:
            series.samples.add(value=1, timestamp=NOW_MS)
            continue
        add_items(series, kind, NOW_MS)
        for n in range(2):
            exemplar = series.exemplars.add(value=n, timestamp=NOW_MS + n)
            exemplar.labels_refs.extend(ref_of(request, text) for text in ("trace_id", "ab" * 16, "code", f"user {n}"))
    return request


def add_items(series: write_v2_pb2.TimeSeries, kind: str, time_ms: int) -> None:
    for n in range(2):
        if kind == "samples":
            series.samples.add(value=n, timestamp=time_ms + n, start_timestamp=time_ms - 5)
        else:
            histogram = series.histograms.add(count_int=3, sum=1.5, schema=3, timestamp=time_ms + n)
            histogram.positive_spans.add(offset=1, length=2)
            histogram.positive_deltas.extend([2, -1])


def ref_of(request: write_v2_pb2.Request, text: str) -> int:
    if text not in request.symbols:
        request.symbols.append(text)
    return list(request.symbols).index(text)


def spelt(request: write_v2_pb2.Request, series: write_v2_pb2.TimeSeries, n: int) -> list[Any]:
    """Item `n` of the series with its exemplars, if it has items, and all around it; references resolved where they can be."""

    def texts(refs: Any) -> list[Any]:
        return [request.symbols[ref] if ref < len(request.symbols) else ref for ref in refs]

    items: list[Any] = [*series.samples, *series.histograms]
    moment = items[n].timestamp if items else NOW_MS
    return [
        texts(series.labels_refs),
        items[n] if items else None,
        [(texts(sent.labels_refs), sent.value, sent.timestamp) for sent in series.exemplars if sent.timestamp == moment],
        (series.metadata.type, texts([series.metadata.help_ref, series.metadata.unit_ref])),
        series.created_timestamp,
    ]


def relabel(**labels: str) -> Callable[[write_v2_pb2.Request], Any]:
    """Changes labels, and adds those that there are not."""

    def spoil(request: write_v2_pb2.Request) -> None:
        refs = request.timeseries[1].labels_refs
        for name, value in labels.items():
            names = [request.symbols[ref] for ref in refs[::2]]
            if name in names:
                refs[2 * names.index(name) + 1] = ref_of(request, value)
            else:
                refs.extend([ref_of(request, name), ref_of(request, value)])

    return spoil


def move_v2(by_ms: int) -> Callable[[write_v2_pb2.Request], Any]:
    """The second item and its exemplar."""

    def spoil(request: write_v2_pb2.Request) -> None:
        series = request.timeseries[1]
        items: list[Any] = [*series.samples, *series.histograms]
        items[1].timestamp += by_ms
        series.exemplars[1].timestamp += by_ms

    return spoil


def label_exemplar(name: str, value: str) -> Callable[[write_v2_pb2.Request], Any]:
    return lambda request: (
        request.timeseries[1].exemplars[1].labels_refs.extend(ref_of(request, text) for text in (name, value))
    )


def keep_metadata(request: write_v2_pb2.Request, **labels: str) -> None:
    """Nothing else, but for the labels."""
    relabel(**labels)(request)
    for field in ("samples", "histograms", "exemplars"):
        request.timeseries[1].ClearField(field)


def keep_nothing(request: write_v2_pb2.Request) -> None:
    keep_metadata(request)
    request.timeseries[1].ClearField("metadata")


def with_metadata(change: Callable[[write_v2_pb2.Request], Any], **fields: int) -> Callable[[write_v2_pb2.Request], Any]:
    def spoil(request: write_v2_pb2.Request) -> None:
        change(request)
        metadata: Any = request.timeseries[1].metadata
        for name, value in fields.items():
            setattr(metadata, name, value)

    return spoil


def add_others(request: write_v2_pb2.Request) -> None:
    """Histograms to samples, and the other way round."""
    series = request.timeseries[1]
    add_items(series, "histograms" if series.samples else "samples", NOW_MS + 60_000)


BOTH = [0, 1]
STRAY = 2**32 - 1
WRITE_V2_CASES: list[tuple[list[int], int, bool, Callable[[write_v2_pb2.Request], Any]]] = [
    (BOTH, errors.INVALID_SERIES, False, lambda request: request.timeseries[1].labels_refs.append(1)),
    (BOTH, errors.INVALID_SERIES, False, lambda request: request.timeseries[1].labels_refs.extend([1, STRAY])),
    (BOTH, errors.INVALID_SERIES, False, lambda request: request.timeseries[1].labels_refs.extend([1, len(request.symbols)])),
    ([1], errors.TIMESTAMP_IN_FUTURE, True, with_metadata(move_v2(TWO_DAYS // 10**6), help_ref=STRAY)),
    ([1], errors.TIMESTAMP_IN_FUTURE, True, with_metadata(move_v2(TWO_DAYS // 10**6), unit_ref=STRAY - 1, type=-1)),
    ([1], errors.TIMESTAMP_IN_FUTURE, True, with_metadata(move_v2(TWO_DAYS // 10**6), unit_ref=STRAY, help_ref=STRAY)),
    ([0, 1, 2, 3], errors.INVALID_SERIES, True, add_others),
    ([0], errors.INVALID_SERIES, False, keep_nothing),
    ([0], errors.NAME_TOO_LONG, True, partial(keep_metadata, __name__="n" * 101)),
    (BOTH, errors.MISSING_METRIC_NAME, False, lambda request: request.timeseries[1].ClearField("labels_refs")),
    (BOTH, errors.INVALID_LABELS, False, lambda request: request.timeseries[1].labels_refs.extend([0, 1])),
    (BOTH, errors.NAME_TOO_LONG, True, relabel(__name__="n" * 101)),
    (BOTH, errors.NAME_TOO_LONG, True, relabel(job="n" * 101)),
    (BOTH, errors.TOO_MANY_ATTRIBUTES, True, relabel(a="v", b="v", c="v")),
    (BOTH, errors.ATTRIBUTE_KEY_TOO_LONG, True, relabel(**{"k" * 101: "v"})),
    (BOTH, errors.ATTRIBUTE_VALUE_TOO_LONG, True, relabel(k="v" * 121)),
    ([1], errors.TIMESTAMP_TOO_OLD, True, move_v2(-TWO_DAYS // 10**6)),
    ([1], errors.TIMESTAMP_TOO_OLD, False, move_v2(-NOW_MS - 5)),
    ([1], errors.TIMESTAMP_IN_FUTURE, True, move_v2(TWO_DAYS // 10**6)),
    ([1], errors.TIMESTAMP_IN_FUTURE, False, move_v2(2**62)),
    ([1], errors.MISSING_TIMESTAMP, False, move_v2(-NOW_MS - 1)),
]


def check_kept_v2(request: write_v2_pb2.Request, rejection: Rejection) -> write_v2_pb2.Request:
    """The payload is the item, with all around it and no symbol too many."""
    payload = write_v2_pb2.Request.FromString(rejection.payload)
    [series] = payload.timeseries
    assert spelt(request, request.timeseries[1], rejection.index - 1) == spelt(payload, series, 0)
    refs = [*series.labels_refs, series.metadata.help_ref, series.metadata.unit_ref]
    refs += [ref for exemplar in series.exemplars for ref in exemplar.labels_refs]
    assert set(range(1, len(payload.symbols))) == {ref for ref in refs if 0 < ref < len(payload.symbols)}
    assert len(set(payload.symbols)) == len(payload.symbols)
    return payload


@pytest.mark.parametrize("kind", ["samples", "histograms"])
@pytest.mark.parametrize(("indices", "reason", "lifted", "spoil"), WRITE_V2_CASES)
def test_a_remote_write_2_item_is_kept_with_a_table_of_its_own(
    kind: str, indices: list[int], reason: int, lifted: bool, spoil: Callable[[write_v2_pb2.Request], Any]
) -> None:
    """A request of one series, with its labels, exemplars, metadata and start; what leads nowhere leads nowhere in it."""
    request = write_request_v2(kind)
    assert [] == check_replays(WRITE_V2, request.SerializeToString(), FITS).rejections
    spoil(request)
    adapted = check_replays(WRITE_V2, request.SerializeToString(), FITS)
    assert [(1 + n, reason) for n in indices] == [(rejection.index, rejection.reason) for rejection in adapted.rejections]
    for rejection in adapted.rejections:
        payload = check_kept_v2(request, rejection)
        if lifted:
            expected = prometheus.reference_v2(payload, ALL, NOW, HEADER).batch
            assert Counter(otlp.single_items(expected)) == replay(WRITE_V2, rejection)


def test_a_broken_remote_write_2_histogram_is_kept() -> None:
    """The histogram's neighbour is stored."""
    request = write_request_v2("histograms")
    request.timeseries[1].histograms[1].positive_deltas.append(1)  # more buckets than its spans have
    [rejection] = check_replays(WRITE_V2, request.SerializeToString(), FITS).rejections
    assert (2, errors.INVALID_HISTOGRAM, b"api") == (rejection.index, rejection.reason, rejection.service_id)
    check_kept_v2(request, rejection)


@pytest.mark.parametrize("kind", ["samples", "histograms"])
def test_a_remote_write_2_item_too_large_for_a_message_is_kept(kind: str) -> None:
    """It is kept with the exemplar that makes it too large; what is around it is stored."""
    request = write_request_v2(kind)
    label_exemplar("l0", "v" * 100)(request)
    label_exemplar("l1", "v" * 100)(request)
    adapted = check_replays(WRITE_V2, request.SerializeToString(), 400)
    [rejection] = adapted.rejections
    assert (2, errors.RECORD_TOO_LARGE, b"api") == (rejection.index, rejection.reason, rejection.service_id)
    check_kept_v2(request, rejection)
    assert 3 == adapted.accepted_count()


def test_references_into_no_table_are_kept() -> None:
    """A payload has no table either: its first symbol would be one that they lead to."""
    request = write_v2_pb2.Request()
    request.timeseries.add(labels_refs=[0, 0]).samples.add(value=1, timestamp=NOW_MS)
    [rejection] = check_replays(WRITE_V2, request.SerializeToString(), FITS).rejections
    assert (errors.INVALID_SERIES, b"unknown_service") == (rejection.reason, rejection.service_id)
    assert request == write_v2_pb2.Request.FromString(rejection.payload)


def test_a_text_that_is_twice_in_the_table_is_as_good() -> None:
    """Labels of one name by two references are two of one name in the payload."""
    request = write_v2_pb2.Request(symbols=["", "__name__", "up", "x", "x", "v", ""])
    request.timeseries.add(labels_refs=[1, 2, 3, 5, 4, 5]).samples.add(value=1, timestamp=NOW_MS)
    [twice] = check_replays(WRITE_V2, request.SerializeToString(), FITS).rejections
    assert 'label "x" occurs twice' == twice.message


def test_payloads_of_long_series_cost_no_more_than_they_hold() -> None:
    """Items that find no room are not put together, however long their labels and many their references, within this
    test's time."""
    request = write_v2_pb2.Request(symbols=["", "x" * 1_000_000, "x" * 1_000_000])
    series = request.timeseries.add(labels_refs=[1, 2] * 20_000 + [STRAY])
    for _ in range(20_000):
        series.samples.add(value=1, timestamp=NOW_MS)
    adapted = run(WRITE_V2, write_v2.adapt, request.SerializeToString(), LOW_BUT_ROWS, FITS, bytes_max=5_000_000)
    assert (20_000, 2) == (adapted.rejected_count(), adapted.dead_letter_items)


# The native API

METRIC: dict[str, Any] = {
    "service_id": "payment-api",
    "metric_name": "cpu",
    "value": 87.3,
    "timestamp": "2026-04-10T12:00:00Z",
}
LOG: dict[str, Any] = {
    "service_id": "payment-api",
    "type": "log",
    "body": 'a \\ "b" ]}, é',
    "timestamp": "2026-04-10T12:00:00Z",
}
NATIVE_CASES: list[tuple[Any, int, bool]] = [
    (METRIC | {"service_id": None}, errors.MISSING_SERVICE_ID, False),
    (METRIC | {"service_id": 5}, errors.INVALID_SERVICE_ID, False),
    (METRIC | {"service_id": "s" * 101}, errors.NAME_TOO_LONG, True),
    (METRIC | {"metric_name": "m" * 101}, errors.NAME_TOO_LONG, True),
    (LOG | {"type": "event", "metric_name": "m" * 101}, errors.NAME_TOO_LONG, True),
    (METRIC | {"type": "Metric"}, errors.INVALID_TYPE, False),
    (METRIC | {"metric_name": ""}, errors.MISSING_METRIC_NAME, False),
    (METRIC | {"metric_name": ["a", {"b": "]"}]}, errors.INVALID_METRIC_NAME, False),
    (METRIC | {"value": None}, errors.MISSING_VALUE, False),
    (METRIC | {"value": math.nan}, errors.INVALID_VALUE, False),
    (METRIC | {"value": "87"}, errors.INVALID_VALUE, False),
    (LOG | {"body": None}, errors.MISSING_BODY, False),
    (LOG | {"body": {"a": [1, [2, {"]": "["}]]}}, errors.INVALID_BODY, False),
    (METRIC | {"trace_id": 5}, errors.INVALID_TRACE_ID, False),
    (METRIC | {"timestamp": None}, errors.MISSING_TIMESTAMP, False),
    (METRIC | {"timestamp": "yesterday"}, errors.INVALID_TIMESTAMP, False),
    (METRIC | {"timestamp": "2026-04-08T12:00:00Z"}, errors.TIMESTAMP_TOO_OLD, True),
    (LOG | {"timestamp": "2026-04-08T12:00:00Z"}, errors.TIMESTAMP_TOO_OLD, True),
    (METRIC | {"timestamp": "1066-10-14T00:00:00Z"}, errors.TIMESTAMP_TOO_OLD, False),
    (METRIC | {"timestamp": "2026-04-12T12:00:00Z"}, errors.TIMESTAMP_IN_FUTURE, True),
    (METRIC | {"timestamp": "9999-12-31T23:59:59Z"}, errors.TIMESTAMP_IN_FUTURE, False),
    (METRIC | {"attributes": "x"}, errors.INVALID_ATTRIBUTES, False),
    (METRIC | {"attributes": {"a": [math.inf]}}, errors.INVALID_ATTRIBUTES, False),
    (METRIC | {"attributes": {"k" * 101: 1}}, errors.ATTRIBUTE_KEY_TOO_LONG, True),
    (LOG | {"attributes": {"k": "\\" * 121}}, errors.ATTRIBUTE_VALUE_TOO_LONG, True),
    ([1, [2]], errors.INVALID_RECORD, False),
    ("], [", errors.INVALID_RECORD, False),
    (5, errors.INVALID_RECORD, False),
]


def expected_native(record: Any) -> Counter[bytes]:
    metrics_batch, logs_batch, rejections = native_reference.reference([record], ALL, NOW, HEADER)
    assert [] == rejections
    batch = TelemetryBatchV1(records=[*metrics_batch.records, *logs_batch.records])
    return Counter(otlp.single_items(batch))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("record", "reason", "lifted"), NATIVE_CASES)
def test_a_record_is_kept_as_it_was_written(record: Any, reason: int, lifted: bool, indent: int | None) -> None:
    """It is kept to the byte; of a batch, without the space around it. A record by itself is the body."""
    text = json.dumps(record, ensure_ascii=indent is None, indent=indent)
    good = json.dumps([METRIC, LOG])[1:-1]
    adapted = check_replays(NATIVE, f" [ {good} ,\n\t{text} \r\n,{good}]\n".encode(), FITS)
    [rejection] = adapted.rejections
    assert (2, reason, text.encode()) == (rejection.index, rejection.reason, rejection.payload)
    service = record.get("service_id") if isinstance(record, dict) else None
    assert (service.encode() if service == "payment-api" else b"") == rejection.service_id
    if lifted:
        assert expected_native(record) == replay(NATIVE, rejection)
    by_itself = run(NATIVE, native.adapt, f" {text}\n".encode(), LOW, FITS).rejections[0]
    assert (reason, rejection.message, f" {text}\n".encode()) == (by_itself.reason, by_itself.message, by_itself.payload)


def test_a_record_nested_too_deep_is_kept() -> None:
    """Its neighbours' texts are not."""
    text = json.dumps(METRIC | {"attributes": {"a": "DEEP"}}).replace('"DEEP"', '{"a":[' * 33 + "]}" * 33)
    [rejection] = check_replays(NATIVE, f"[{json.dumps(LOG)},{text}]".encode(), FITS).rejections
    assert (1, errors.NESTED_TOO_DEEP, text.encode()) == (rejection.index, rejection.reason, rejection.payload)


def test_records_too_large_for_a_message_are_kept() -> None:
    """Metrics and logs, found only when all has been read, and reported in the order in which they were sent."""
    small = [METRIC, LOG]
    big = [record | {"attributes": {f"k{n}": "v" * 100 for n in range(3)}} for record in (LOG, METRIC, LOG)]
    records = [small[0], big[0], small[1], big[1], big[2], small[0] | {"value": None}, small[1]]
    adapted = check_replays(NATIVE, json.dumps(records).encode(), 300)
    assert [1, 3, 4, 5] == [rejection.index for rejection in adapted.rejections]
    assert [json.dumps(records[n]).encode() for n in (1, 3, 4, 5)] == [rejection.payload for rejection in adapted.rejections]
    assert [errors.RECORD_TOO_LARGE] * 3 == [rejection.reason for rejection in adapted.rejections][:3]
    assert {b"payment-api"} == {rejection.service_id for rejection in adapted.rejections}
    for rejection in adapted.rejections[:3]:
        assert expected_native(records[rejection.index]) == replay(NATIVE, rejection)


# All of them


def test_no_reason_of_an_item_is_missing_here() -> None:
    """A new one has to be added here, with what becomes of it."""
    seen = {case[2] for case in OTLP_CASES} | {case[2] for case in WRITE_CASES} | {case[1] for case in WRITE_V2_CASES}
    seen |= {case[1] for case in NATIVE_CASES}
    seen |= {errors.RECORD_TOO_LARGE, errors.NESTED_TOO_DEEP}  # in tests of their own, in each section
    of_the_writer = {errors.STORE_REFUSED, errors.UNREADABLE_MESSAGE}
    assert {code for code in REASON if code < INVALID_JSON} - of_the_writer == seen


def test_beyond_the_rejections_reported_nothing_is_kept() -> None:
    """The list ends, and the payloads with it; what is beyond is counted."""
    adapter = Adapter(SOURCE_NATIVE, partial(native.adapt_batch, batch_items_max=20_000), native.adapt)
    adapted = run(adapter, adapter.whole, b"[" + b"5," * 10_004 + b"5]", LOW, FITS)
    assert (10_005, 10_000) == (adapted.rejected_count(), len(adapted.rejections))
    assert (10_000, 10_000) == (adapted.dead_letter_items, adapted.dead_letter_bytes)
