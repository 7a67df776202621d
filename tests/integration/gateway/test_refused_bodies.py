"""A request whose body no adapter gets is a dead letter: its media type or coding is unknown, or it does not decompress."""

import gzip

import httpx
import pytest
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_REQUEST, DeadLetter, DeadLetterBatch
from support.fakes.receiving import Receivers, grpc_receivers, http_receivers, receivers
from support.http2 import http2
from support.otlp_grpc import EACH_SERVICE, Service
from support.ways import SERVERS, WAYS_BY_NAME, Way

from collector.broker.contract import DEAD_LETTERS_TOPIC
from collector.records.dead_letter import Caps
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

CAPS = Caps(100, 1 << 20)
BROKEN_GZIP = gzip.compress(bytes(1000))[:-9] + b"\xff" * 9
LARGE = b"\xff" * (100 << 10)


def find(key: bytes) -> Caller | None:
    return Caller("acme", Scope.INGEST, UNLIMITED, "") if key == b"k" else None


def letters(made: Receivers) -> list[DeadLetter]:
    assert all(message.topic == DEAD_LETTERS_TOPIC for message in made.producer.messages)
    return [
        record.letter for message in made.producer.messages for record in DeadLetterBatch.FromString(message.payload).records
    ]


@pytest.mark.parametrize("server", SERVERS)
@WAYS_BY_NAME
async def test_http(server: str, way: Way) -> None:
    """On every route the body is kept as it came, cut at 64 KiB, for the tenant or for anonymous."""
    body = way.as_sent(way.body())
    coding = {"content-type": way.content_type}
    cases = [
        ({"content-type": "text/html"}, body, "unsupported_media_type", 415),
        ({"content-type": "text/html"}, LARGE, "unsupported_media_type", 415),
        (coding | {"content-encoding": "lz4"}, body, "unsupported_content_encoding", 415),
        (coding | {"content-encoding": "snappy"}, b"\xff" * 10, "invalid_compression", 400),
    ]
    if not way.is_remote_write:
        cases.append((coding | {"content-encoding": "gzip"}, BROKEN_GZIP, "invalid_compression", 400))
    for key, tenant in (({}, "anonymous"), ({"x-api-key": "k"}, "acme")):
        async with (
            http_receivers(server, caps=CAPS, find=find) as made,
            httpx.AsyncClient(base_url=made.url, timeout=20) as http,
        ):
            for headers, sent, reason, status in cases:
                made.producer.messages.clear()
                answer = await http.post(way.path, content=sent, headers=key | headers)
                assert (reason, status) == (reason, answer.status_code)
                [letter] = letters(made)
                assert (tenant, way.path, reason) == (letter.tenant_id, letter.route, letter.reason)
                assert (sent[: 64 << 10], len(sent)) == (letter.payload, letter.payload_size_bytes)
                assert PAYLOAD_FORM_REQUEST == letter.payload_form
                assert 0 == made.in_flight.bytes_held
            assert len(cases) == made.counted("infrasage_requests_refused_total")
            assert len(cases) == made.counted("infrasage_tenant_requests_total", tenant=tenant, status="refused")


@EACH_SERVICE
async def test_grpc(service: Service) -> None:
    """The same, of each service: an unknown content-type, an unknown coding or none, and what does not decompress."""
    made = receivers(caps=CAPS, find=find)
    unknown = ("grpc-encoding", "lz4")
    cases = [
        ("application/grpc+json", (), b"\0", "unsupported_media_type", "12"),
        ("application/grpc", (unknown,), b"\1", "unsupported_content_encoding", "12"),
        ("application/grpc", (), b"\1", "invalid_compression", "3"),
        ("application/grpc", (("grpc-encoding", "gzip"),), b"\1", "invalid_compression", "3"),
    ]
    async with grpc_receivers(made) as (_, server), http2(server.port) as client:
        for key, tenant in (((), "anonymous"), ((("x-api-key", "k"),), "acme")):
            for sent in (BROKEN_GZIP, LARGE):
                for content_type, headers, flag, reason, code in cases:
                    made.producer.messages.clear()
                    message = flag + len(sent).to_bytes(4, "big") + sent
                    stream_id = client.request(service.method, content_type, None, *headers, *key)
                    await client.upload({stream_id: message})
                    answer = await client.response(stream_id)
                    assert (reason, code) == (reason, answer.headers["grpc-status"])
                    [letter] = letters(made)
                    assert (tenant, service.name + "/Export", reason) == (letter.tenant_id, letter.route, letter.reason)
                    assert (sent[: 64 << 10], len(sent)) == (letter.payload, letter.payload_size_bytes)
                    assert 0 == made.in_flight.bytes_held
            assert 2 * len(cases) == made.counted("infrasage_tenant_requests_total", tenant=tenant, status="refused")


async def test_past_the_cap_the_head_is_refused() -> None:
    """The body is not read then."""
    async with http_receivers(caps=Caps(1, 1000)) as made, httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        for _ in range(3):
            assert 415 == (await http.post("/v1/logs", content=b"x", headers={"content-type": "text/html"})).status_code
        assert 1 == len(letters(made))


async def test_the_refusal_is_permanent_whatever_becomes_of_the_body() -> None:
    """A body that is too large, or that there is no room for now, is refused for what its head says: never retryable."""
    async with (
        http_receivers(caps=CAPS, in_flight_bytes_max=1 << 16, body_bytes_max=1 << 17) as made,
        httpx.AsyncClient(base_url=made.url, timeout=20) as http,
    ):
        for size in (1 << 18, (1 << 17) - 1):
            answer = await http.post("/v1/logs", content=bytes(size), headers={"content-type": "text/html"})
            assert (size, 415) == (size, answer.status_code)
            assert "retry-after" not in answer.headers
        assert [] == letters(made)
        assert 0 == made.in_flight.bytes_held
        as_sent = {"content-type": "application/x-protobuf"}
        assert 413 == (await http.post("/v1/logs", content=bytes(1 << 18), headers=as_sent)).status_code
        assert 3 == made.counted("infrasage_tenant_requests_total", tenant="anonymous", status="refused")


async def test_who_may_not_send_has_nothing_kept() -> None:
    async with (
        http_receivers(caps=CAPS, find=find, anonymous=None) as made,
        httpx.AsyncClient(base_url=made.url, timeout=20) as http,
    ):
        for key in ({}, {"x-api-key": "other"}):
            answer = await http.post("/v1/logs", content=b"x", headers={"content-type": "text/html"} | key)
            assert 401 == answer.status_code
        assert [] == letters(made)
