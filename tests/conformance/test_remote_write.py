"""Prometheus remote write, item by item: see items.py."""

import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import cramjam
import httpx
import pytest
from infrasage.prometheus.v1 import write_pb2 as v1
from infrasage.prometheus.v2 import write_pb2 as v2
from infrasage.v1.telemetry_pb2 import SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from support.conformance import Client, collector
from support.fakes.receiving import NOW_UNIX_NANO, remote_write, remote_write_v2
from support.references.remote_write import length_delimited, varint, write_request, write_request_v2
from support.tenants import on_plans

from collector.broker.contract import BrokerDown
from collector.rate_limit.local import LocalLimiter
from collector.tenancy.plans import Plan, Rate

V1 = "application/x-protobuf"
V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
NOW_MS = NOW_UNIX_NANO // 10**6
Write = Callable[[Sequence[tuple[Mapping[str, str], Sequence[tuple[float, int]]]]], bytes]
EACH_VERSION = pytest.mark.parametrize(
    ("content_type", "write"), [(V1, write_request), (V2, write_request_v2)], ids=["1.0", "2.0"]
)
KINDS = ("samples", "histograms", "exemplars")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with collector() as client:
        yield client


def written(answer: httpx.Response) -> list[str | None]:
    return [answer.headers.get(f"x-prometheus-remote-write-{kind}-written") for kind in KINDS]


def metrics(client: Client) -> list[metrics_pb2.Metric]:
    return [metric for record in client.made.producer.records() for metric in record.metrics]


def points(client: Client) -> list[metrics_pb2.NumberDataPoint]:
    return [point for metric in metrics(client) for point in (*metric.gauge.data_points, *metric.sum.data_points)]


def series(*samples: tuple[float, int], **labels: str) -> tuple[dict[str, str], tuple[tuple[float, int], ...]]:
    return {"__name__": "m", "job": "j"} | labels, samples


async def test_remote_write_01_the_content_type_says_which_version(client: Client) -> None:
    bodies = {SOURCE_PROMETHEUS_WRITE_V1: remote_write(), SOURCE_PROMETHEUS_WRITE_V2: remote_write_v2()}
    for content_type, source in (
        ("application/x-protobuf", SOURCE_PROMETHEUS_WRITE_V1),
        ("application/x-protobuf;proto=prometheus.WriteRequest", SOURCE_PROMETHEUS_WRITE_V1),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", SOURCE_PROMETHEUS_WRITE_V2),
    ):
        client.made.producer.messages.clear()
        assert (await client.write(content_type, bodies[source])).status_code == 204
        assert client.made.producer.records()[0].source == source
    for odd in ("", "text/plain", "application/octet-stream", "application/vnd.google.protobuf"):
        assert (await client.write(odd, remote_write())).status_code == 204
    for unknown in ("application/x-protobuf;proto=x.Y", "text/html", "application/json"):
        assert (await client.write(unknown, remote_write())).status_code == 415
    answer = await client.write_raw(bytes(cramjam.snappy.compress_raw(remote_write())), **{"content-encoding": "snappy"})
    assert answer.status_code == 204


async def test_remote_write_02_snappy_and_nothing_else(client: Client) -> None:
    body = bytes(cramjam.snappy.compress_raw(remote_write()))
    head = {"content-type": V1}
    assert (await client.write_raw(body, **head)).status_code == 204  # neither coding nor version said
    for coding in ("gzip", "zstd", "identity", "br"):
        assert (await client.write_raw(body, **head | {"content-encoding": coding})).status_code == 415
    framed = bytes(cramjam.snappy.compress(remote_write()))
    for corrupt in (body[:-1], b"\xff" * 20, framed, b""):
        answer = await client.write_raw(corrupt, **head | {"content-encoding": "snappy"})
        assert answer.status_code == 400, corrupt
    announced = await client.write_raw(b"\xff\xff\xff\xff\x0f", **head)
    assert announced.status_code == 413


@EACH_VERSION
async def test_remote_write_03_success_is_204_and_2_0_is_answered_what_was_written(
    client: Client, content_type: str, write: Write
) -> None:
    good = [series((1.0, NOW_MS), (2.0, NOW_MS + 1))]
    answer = await client.write(content_type, write(good))
    assert (answer.status_code, answer.content) == (204, b"")
    assert written(answer) == (["2", "0", "0"] if content_type == V2 else [None] * 3)
    late = await client.write(content_type, write([*good, series((1.0, 1))]))
    assert late.status_code == 400
    assert written(late) == (["2", "0", "0"] if content_type == V2 else [None] * 3)


@EACH_VERSION
async def test_remote_write_04_what_was_not_written_is_reported_and_the_rest_is_kept(
    client: Client, content_type: str, write: Write
) -> None:
    """If the whole can't be kept, nothing is."""
    answer = await client.write(content_type, write([series((1.0, NOW_MS)), series((2.0, 1), x="y")]))
    assert answer.status_code == 400
    assert "1 of 2 samples rejected: 1 timestamp_too_old" in answer.text
    assert [point.as_double for point in points(client)] == [1.0]
    client.made.producer.error = BrokerDown("away")
    assert (await client.write(content_type, write([series((3.0, NOW_MS))]))).status_code == 503
    assert len(points(client)) == 1


@EACH_VERSION
async def test_remote_write_05_labels(client: Client, content_type: str, write: Write) -> None:
    sample = ((1.0, NOW_MS),)
    for labels in ({"job": "j"}, {"__name__": ""}, {"__name__": "m", "": "x"}):
        answer = await client.write(content_type, write([(labels, sample)]))
        assert answer.status_code == 400, labels
    tolerated = {"x": "", "job": "", "__name__": "http.server duration\nünï", "zone": "1", "a b": "c"}
    assert (await client.write(content_type, write([(tolerated, sample)]))).status_code == 204
    assert [metric.name for metric in metrics(client)] == ["http.server duration\nünï"]


async def test_remote_write_05_repeated_labels_and_labels_out_of_order(client: Client) -> None:
    request = v1.WriteRequest()
    out_of_order = request.timeseries.add()
    for name, value in (("z", "1"), ("__name__", "m"), ("a", "2")):
        out_of_order.labels.add(name=name, value=value)
    out_of_order.samples.add(value=1, timestamp=NOW_MS)
    assert (await client.write(V1, request.SerializeToString())).status_code == 204
    out_of_order.labels.add(name="a", value="3")
    assert (await client.write(V1, request.SerializeToString())).status_code == 400


@pytest.mark.parametrize("refs", [[1], [1, 2, 3], [1, 99], [99, 1]])
async def test_remote_write_05_symbols_that_are_not_there(client: Client, refs: list[int]) -> None:
    """The series is rejected, its neighbour kept."""
    request = v2.Request(symbols=["", "__name__", "m", "x"])
    request.timeseries.add(labels_refs=[1, 2]).samples.add(value=1, timestamp=NOW_MS)
    request.timeseries.add(labels_refs=refs).samples.add(value=2, timestamp=NOW_MS)
    answer = await client.write(V2, request.SerializeToString())
    assert (answer.status_code, written(answer)) == (400, ["1", "0", "0"])
    assert [point.as_double for point in points(client)] == [1.0]


async def test_remote_write_06_what_a_series_of_2_0_may_have(client: Client) -> None:
    def request(*, sample: bool = False, histogram: bool = False, exemplar: bool = False, metadata: bool = False) -> bytes:
        made = v2.Request(symbols=["", "__name__", "m", "help"])
        entry = made.timeseries.add(labels_refs=[1, 2])
        if sample:
            entry.samples.add(value=1, timestamp=NOW_MS)
        if histogram:
            entry.histograms.add(count_int=1, zero_count_int=1, sum=0.0, timestamp=NOW_MS)
        if exemplar:
            entry.exemplars.add(value=1, timestamp=NOW_MS)
        if metadata:
            entry.metadata.help_ref = 3
            entry.metadata.type = v2.Metadata.METRIC_TYPE_GAUGE
        return made.SerializeToString()

    assert (await client.write(V2, request(sample=True, histogram=True))).status_code == 400
    assert (await client.write(V2, request())).status_code == 400
    assert (await client.write(V2, request(exemplar=True))).status_code == 204
    assert (await client.write(V2, request(metadata=True))).status_code == 204


@EACH_VERSION
@pytest.mark.parametrize(
    "bits", ["7ff0000000000002", "7ff8000000000000", "7ff0000000000000", "fff0000000000000", "8000000000000000"]
)
async def test_remote_write_07_values_keep_their_bits(client: Client, content_type: str, write: Write, bits: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert (await client.write(content_type, write([series((value, NOW_MS))]))).status_code == 204
    [point] = points(client)
    assert bytes.fromhex(bits)[::-1] in point.SerializeToString()


@EACH_VERSION
async def test_remote_write_08_times_are_milliseconds(client: Client, content_type: str, write: Write) -> None:
    """Negative ones are read, and are too old."""
    assert (await client.write(content_type, write([series((1.0, NOW_MS + 7))]))).status_code == 204
    assert [point.time_unix_nano for point in points(client)] == [(NOW_MS + 7) * 10**6]
    answer = await client.write(content_type, write([series((1.0, -5))]))
    assert answer.status_code == 400
    assert "timestamp_too_old" in answer.text


@pytest.mark.parametrize("field", [3, 6], ids=["of the sample", "of the series"])
async def test_remote_write_08_start_timestamps_of_new_and_old_senders(client: Client, field: int) -> None:
    start = NOW_MS - 5_000
    sample = b"\x09" + struct.pack("<d", 4.0) + b"\x10" + varint(NOW_MS)
    counter = length_delimited(5, b"\x08\x01")  # METRIC_TYPE_COUNTER
    entry = length_delimited(1, b"\x01\x02") + counter
    if field == 3:
        entry += length_delimited(2, sample + b"\x18" + varint(start))
    else:
        entry += length_delimited(2, sample) + b"\x30" + varint(start)
    symbols = b"".join(length_delimited(4, text) for text in (b"", b"__name__", b"m_total"))
    assert (await client.write(V2, symbols + length_delimited(5, entry))).status_code == 204
    [metric] = metrics(client)
    assert [point.start_time_unix_nano for point in metric.sum.data_points] == [start * 10**6]


async def test_remote_write_09_native_histograms_are_kept_whole(client: Client) -> None:
    """Integers, floats and custom buckets are kept. Counts that do not add up are noted, spans that do not fit rejected."""
    request = v2.Request(symbols=["", "__name__", "m"])
    made = request.timeseries.add(labels_refs=[1, 2])
    whole = made.histograms.add(count_int=6, sum=9.5, schema=2, zero_threshold=0.001, zero_count_int=1, timestamp=NOW_MS)
    whole.positive_spans.add(offset=1, length=2)
    whole.positive_deltas.extend([2, 1])  # 2 and 3
    floats = made.histograms.add(count_float=3.5, sum=1.0, schema=0, zero_count_float=1.5, timestamp=NOW_MS + 1)
    floats.negative_spans.add(offset=0, length=1)
    floats.negative_counts.append(2.0)
    custom = made.histograms.add(count_int=3, sum=2.0, schema=-53, timestamp=NOW_MS + 2)
    custom.positive_spans.add(offset=0, length=2)
    custom.positive_deltas.extend([1, 1])
    custom.custom_values.append(0.5)
    answer = await client.write(V2, request.SerializeToString())
    assert (answer.status_code, written(answer)) == (204, ["0", "3", "0"])
    kept = metrics(client)
    exponential = [point for metric in kept for point in metric.exponential_histogram.data_points]
    assert (exponential[0].count, exponential[0].sum, exponential[0].scale) == (6, 9.5, 2)
    assert list(exponential[0].positive.bucket_counts) == [2, 3]
    assert list(exponential[1].negative.bucket_counts) == [2]
    [explicit] = [point for metric in kept for point in metric.histogram.data_points]
    assert (list(explicit.explicit_bounds), list(explicit.bucket_counts)) == ([0.5], [1, 2])
    whole.count_int = 7
    answer = await client.write(V2, request.SerializeToString())
    assert (answer.status_code, answer.headers["x-infrasage-repaired"]) == (204, "histogram_count_differs=1")
    whole.positive_deltas.append(1)
    assert (await client.write(V2, request.SerializeToString())).status_code == 400


@EACH_VERSION
async def test_remote_write_10_out_of_order_and_repeated_samples_are_kept(
    client: Client, content_type: str, write: Write
) -> None:
    samples = [(1.0, NOW_MS), (2.0, NOW_MS - 10), (3.0, NOW_MS), (3.0, NOW_MS)]
    assert (await client.write(content_type, write([series(*samples)]))).status_code == 204
    assert [(point.as_double, point.time_unix_nano // 10**6) for point in points(client)] == samples


async def test_remote_write_11_metadata_and_exemplars_are_stored(client: Client) -> None:
    request = v2.Request(symbols=["", "__name__", "m_total", "What it counts.", "bytes", "trace_id", "ab" * 16])
    entry = request.timeseries.add(labels_refs=[1, 2])
    entry.samples.add(value=1, timestamp=NOW_MS)
    entry.metadata.type = v2.Metadata.METRIC_TYPE_COUNTER
    entry.metadata.help_ref, entry.metadata.unit_ref = 3, 4
    entry.exemplars.add(labels_refs=[5, 6], value=0.5, timestamp=NOW_MS)
    answer = await client.write(V2, request.SerializeToString())
    assert (answer.status_code, written(answer)) == (204, ["1", "0", "1"])
    [metric] = metrics(client)
    assert (metric.name, metric.description, metric.unit) == ("m_total", "What it counts.", "bytes")
    assert metric.sum.is_monotonic
    [exemplar] = metric.sum.data_points[0].exemplars
    assert (exemplar.as_double, exemplar.trace_id.hex()) == (0.5, "ab" * 16)


@EACH_VERSION
async def test_remote_write_12_when_to_try_again(content_type: str, write: Write) -> None:
    plan = Plan("Small", requests=Rate(1, 1), items=None, size_bytes=None)
    async with collector(find=on_plans({"acme": plan}), limiter=LocalLimiter(lambda: 0)) as client:
        body = write([series((1.0, NOW_MS))])
        statuses = []
        for _ in range(2):
            answer = await client.write(content_type, body, **{"x-api-key": "acme"})
            statuses.append((answer.status_code, "retry-after" in answer.headers))
        assert statuses == [(204, False), (429, True)]
        client.made.producer.error = BrokerDown("away")
        away = await client.write(content_type, body)
        assert (away.status_code, int(away.headers["retry-after"]) > 0) == (503, True)
        assert written(away) == (["0", "0", "0"] if content_type == V2 else [None] * 3)
