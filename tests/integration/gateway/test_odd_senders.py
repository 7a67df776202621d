"""What senders of this field send beside what the specifications ask for, over both servers: it is taken."""

import zlib
from collections.abc import Callable

import cramjam
import httpx
import pytest
from support.fakes.receiving import NOW, Receivers, http_receivers, remote_write
from support.ways import JSON, SERVERS, WAYS, WAYS_BY_NAME, Way

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "deflate": zlib.compress,
    "snappy": lambda body: bytes(cramjam.snappy.compress_raw(body)),
    "x-snappy-framed": lambda body: bytes(cramjam.snappy.compress(body)),
}
EACH_SERVER = pytest.mark.parametrize("server", SERVERS)


async def send(made: Receivers, path: str, body: bytes, headers: list[tuple[str, str]]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        return await http.post(path, content=body, headers=headers)


@EACH_SERVER
@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("way", [way for way in WAYS if not way.is_remote_write], ids=lambda way: way.name)
async def test_deflate_and_snappy_over_http(server: str, way: Way, coding: str) -> None:
    """As the Collector's receivers take them; snappy in its block format or framed."""
    async with http_receivers(server) as made:
        packed = PACKED[coding](way.body(good=1))
        headers = [("content-type", way.content_type), ("content-encoding", coding)]
        assert way.status == (await send(made, way.path, packed, headers)).status_code
        if coding == "x-snappy-framed":
            headers[1] = ("content-encoding", "snappy")
            assert way.status == (await send(made, way.path, packed, headers)).status_code
        assert 400 == (await send(made, way.path, packed[:-1], headers)).status_code


@EACH_SERVER
@WAYS_BY_NAME
async def test_a_trailing_slash_and_a_content_type_twice(server: str, way: Way) -> None:
    """A proxy that sets what was there already changes nothing; two that differ are still refused."""
    async with http_receivers(server) as made:
        body = way.as_sent(way.body(good=1))
        twice = [("content-type", way.content_type)] * 2
        assert way.status == (await send(made, f"{way.path}/", body, twice)).status_code
        other = [("content-type", way.content_type), ("content-type", "text/html")]
        assert 415 == (await send(made, way.path, body, other)).status_code
        assert 1 == made.producer.item_count()


@EACH_SERVER
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream", "application/vnd.google.protobuf"])
async def test_remote_write_with_no_content_type_or_an_odd_one(server: str, content_type: str | None) -> None:
    """It is 1.0."""
    async with http_receivers(server) as made:
        headers = [] if content_type is None else [("content-type", content_type)]
        body = bytes(cramjam.snappy.compress_raw(remote_write()))
        assert 204 == (await send(made, "/api/v1/prometheus/write", body, headers)).status_code
        assert 1 == made.producer.item_count()


async def test_an_object_that_holds_the_array_is_told_what_to_send() -> None:
    """To the batch the array by itself; and an array of records to the batch's route."""
    record = {"service_id": "s", "metric_name": "m", "value": 1, "timestamp": NOW}
    async with http_receivers() as made, httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        batch = (await http.post("/api/v1/telemetry/batch", json={"records": [record]}, headers={"content-type": JSON})).json()
        assert batch["message"] == 'a batch must be a JSON array of records; got object: send the array "records" by itself'
        single = (await http.post("/api/v1/telemetry", json={"records": [record]})).json()
        assert ("missing_service_id", True) == (single["error"], "/api/v1/telemetry/batch" in single["message"])
