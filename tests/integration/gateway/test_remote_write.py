"""Remote write over HTTP: the version of a request, and the answer to it. What every route does is in test_http."""

from collections.abc import AsyncIterator

import cramjam
import httpx
import pytest
from infrasage.prometheus.v2 import write_pb2
from infrasage.v1.telemetry_pb2 import SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2, TelemetryBatch
from support.fakes.receiving import NOW_UNIX_NANO, Receivers, http_receivers, remote_write, remote_write_v2

from collector.broker.contract import BrokerDown

PATH = "/api/v1/prometheus/write"
V1 = "application/x-protobuf"
V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
NOW_MS = NOW_UNIX_NANO // 10**6


@pytest.fixture
async def made() -> AsyncIterator[Receivers]:
    async with http_receivers() as made:
        yield made


async def send(made: Receivers, content_type: str, body: bytes, **headers: str) -> httpx.Response:
    """Compressed."""
    async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        content = bytes(cramjam.snappy.compress_raw(body))
        return await http.post(PATH, content=content, headers={"content-type": content_type} | headers)


def written(answer: httpx.Response) -> tuple[str | None, ...]:
    """What the headers say of samples, histograms and exemplars."""
    kinds = ("Samples", "Histograms", "Exemplars")
    return tuple(answer.headers.get(f"X-Prometheus-Remote-Write-{kind}-Written") for kind in kinds)


def request_v2() -> write_pb2.Request:
    """Three samples, a histogram, and three exemplars, one of which has a series of its own."""
    request = write_pb2.Request(symbols=["", "__name__", "requests", "latency"])
    requests = request.timeseries.add(labels_refs=[1, 2])
    for n in range(3):
        requests.samples.add(value=n, timestamp=NOW_MS - n)
    for n in range(2):
        requests.exemplars.add(value=n, timestamp=NOW_MS - n)
    latency = request.timeseries.add(labels_refs=[1, 3])
    latency.histograms.add(count_int=1, zero_count_int=1, sum=0.0, timestamp=NOW_MS)
    request.timeseries.add(labels_refs=[1, 3]).exemplars.add(value=1, timestamp=NOW_MS)
    return request


@pytest.mark.parametrize(
    ("content_type", "source"),
    [
        ("application/x-protobuf", SOURCE_PROMETHEUS_WRITE_V1),
        ("application/x-protobuf;proto=prometheus.WriteRequest", SOURCE_PROMETHEUS_WRITE_V1),
        ("application/x-protobuf; charset=utf-8", SOURCE_PROMETHEUS_WRITE_V1),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", SOURCE_PROMETHEUS_WRITE_V2),
        ('Application/X-Protobuf ; charset=utf-8; Proto="io.prometheus.write.v2.Request"', SOURCE_PROMETHEUS_WRITE_V2),
    ],
)
@pytest.mark.parametrize("version", ["", "0.1.0", "2.0.0"])
async def test_the_content_type_says_which_version_it_is(made: Receivers, content_type: str, source: int, version: str) -> None:
    """Nothing else does: the version header may be missing, or differ."""
    body = remote_write_v2() if source == SOURCE_PROMETHEUS_WRITE_V2 else remote_write()
    headers = {"X-Prometheus-Remote-Write-Version": version} if version else {}
    answer = await send(made, content_type, body, **headers)
    assert answer.status_code == 204
    [message] = made.producer.messages
    assert source == TelemetryBatch.FromString(message.payload).records[0].source


@pytest.mark.parametrize(
    ("content_type", "body", "told"),
    [
        (V1, remote_write_v2(), "the body is remote write 2.0: its Content-Type must be " + V2),
        ("", remote_write_v2(), "the body is remote write 2.0: its Content-Type must be " + V2),
        ("text/plain", remote_write_v2(), "the body is remote write 2.0"),
        ("application/octet-stream", remote_write_v2(), "the body is remote write 2.0"),
        ("application/vnd.google.protobuf", remote_write_v2(), "the body is remote write 2.0"),
        (V2, remote_write(), "the body is remote write 1.0: its Content-Type must be " + V1),
    ],
    ids=["v1", "none", "text", "octets", "vnd", "v2"],
)
async def test_a_body_of_the_other_version_is_415(made: Receivers, content_type: str, body: bytes, told: str) -> None:
    """Nothing of it would be read: all of its fields are unknown."""
    answer = await send(made, content_type, body, **{"X-Prometheus-Remote-Write-Version": "2.0.0"})
    assert (415, True) == (answer.status_code, told in answer.text)
    assert [] == made.producer.messages


@pytest.mark.parametrize("content_type", [V1, V2])
async def test_a_body_of_which_nothing_is_known_is_400(made: Receivers, content_type: str) -> None:
    answer = await send(made, content_type, bytes([0xC2, 0x3E, 3]) + b"new")
    assert (400, True) == (answer.status_code, "has no field 1000" in answer.text)
    assert 204 == (await send(made, content_type, b"")).status_code


@pytest.mark.parametrize("proto", ["io.prometheus.write.v3.Request", "x", ""])
async def test_unknown_messages_are_415(made: Receivers, proto: str) -> None:
    """The meaning of such a body is unknown, and no written counts are reported."""
    answer = await send(made, f"application/x-protobuf;proto={proto}", remote_write())
    assert answer.status_code == 415
    assert written(answer) == (None, None, None)


async def test_what_was_written_is_answered(made: Receivers) -> None:
    """Samples, histograms and exemplars each have the number that is kept."""
    answer = await send(made, V2, request_v2().SerializeToString())
    assert (answer.status_code, answer.content) == (204, b"")
    assert written(answer) == ("3", "1", "3")
    assert len(answer.headers["x-infrasage-batch-id"]) == 36
    assert made.producer.item_count() == 5


async def test_what_was_not_written_does_not_count(made: Receivers) -> None:
    """400 with counts and reasons; the answer reports what is kept."""
    request = request_v2()
    request.timeseries[0].samples[1].timestamp = 1
    request.timeseries[1].histograms[0].schema = 9
    request.timeseries.add(labels_refs=[1]).samples.add(value=1, timestamp=NOW_MS)
    answer = await send(made, V2, request.SerializeToString())
    assert answer.status_code == 400
    assert answer.text == (
        "3 of 6 samples rejected: 1 timestamp_too_old (Timestamp is more than 24h in the past),"
        " 1 invalid_histogram (schema 9 is not -4 to 8 or -53),"
        " 1 invalid_series (an odd number of label references: 1)\n"
    )
    assert written(answer) == ("2", "0", "3")
    assert made.producer.item_count() == 3


async def test_nothing_written_is_answered_too(made: Receivers) -> None:
    """All of it rejected."""
    answer = await send(made, V2, remote_write_v2(good=0, late=2))
    assert answer.status_code == 400
    assert written(answer) == ("0", "0", "0")


async def test_an_empty_request_is_a_success(made: Receivers) -> None:
    """The written counts are 0."""
    answer = await send(made, V2, b"")
    assert answer.status_code == 204
    assert written(answer) == ("0", "0", "0")


@pytest.mark.parametrize(
    ("status", "body", "headers", "error"),
    [
        (400, b"\xff", {}, None),
        (400, write_pb2.Request(symbols=["not empty"]).SerializeToString(), {}, None),
        (413, b"\x22\x00" * ((1 << 20) + 1), {}, None),
        (415, remote_write_v2(), {"content-encoding": "gzip"}, None),
        (503, remote_write_v2(), {}, BrokerDown("disk gone")),
    ],
)
async def test_a_refused_request_has_written_nothing(
    made: Receivers, status: int, body: bytes, headers: dict[str, str], error: Exception | None
) -> None:
    """The headers report 0 whatever the reason is, and when it can be sent again."""
    made.producer.error = error
    answer = await send(made, V2, body, **headers)
    assert answer.status_code == status
    assert written(answer) == ("0", "0", "0")
    assert answer.headers.get("retry-after") == ("3" if status == 503 else None)
    assert made.producer.item_count() == 0


@pytest.mark.parametrize(("late", "status"), [(0, 204), (1, 400)])
async def test_answers_to_1_0_say_nothing_of_it(made: Receivers, late: int, status: int) -> None:
    """Prometheus would believe the headers, and take a success for a failure."""
    answer = await send(made, V1, remote_write(good=1, late=late))
    assert answer.status_code == status
    assert written(answer) == (None, None, None)
