"""Every route and protocol, and every kind of key, over real sockets: who may send and read, as whom, and what others hear."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import grpc
import httpx
import pytest
from grpc import aio
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support.fakes.receiving import (
    ANONYMOUS,
    RawConnection,
    Receivers,
    Response,
    connection,
    grpc_receivers,
    http_receivers,
    otlp_logs,
    post,
    receivers,
)
from support.otlp_grpc import EACH_SERVICE, UNCOMPRESSED, Service, export, refused
from support.tenants import Headers, Sent, keyring, ways_of_saying, without_anonymous
from support.ways import PROTOBUF, SERVERS, WAYS, WAYS_BY_NAME, Way, told

from adapters.errors import INSUFFICIENT_SCOPE, INVALID_API_KEY, MISSING_API_KEY, REASON
from collector.tenancy.keyring import Keyring

USAGE = "/api/v1/usage"
REALM = 'Bearer realm="infrasage"'


class Refused(NamedTuple):
    """How an answer shows its reason."""

    http: int
    grpc: grpc.StatusCode
    www_authenticate: str


REFUSED = {
    MISSING_API_KEY: Refused(401, grpc.StatusCode.UNAUTHENTICATED, REALM),
    INVALID_API_KEY: Refused(401, grpc.StatusCode.UNAUTHENTICATED, f'{REALM}, error="invalid_token"'),
    INSUFFICIENT_SCOPE: Refused(403, grpc.StatusCode.PERMISSION_DENIED, f'{REALM}, error="insufficient_scope"'),
}


class Keys(NamedTuple):
    """A keyring, and the ways of saying who one is by it."""

    ring: Keyring
    sent: list[Sent]

    def ways_of_saying(self, *, anonymous: bool) -> list[Sent]:
        return self.sent if anonymous else [without_anonymous(each) for each in self.sent]


class Case(NamedTuple):
    """Receivers, and every way of saying who one is with what must come of it."""

    made: Receivers
    sent: list[Sent]


ANONYMOUS_OR_NOT = pytest.mark.parametrize("anonymous", [True, False], ids=["anonymous", "keys only"])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    ring, texts = keyring(tmp_path_factory.mktemp("keys"))
    return Keys(ring, ways_of_saying(texts))


@asynccontextmanager
async def listening(keys: Keys, server: str, *, anonymous: bool, with_pages: bool = False) -> AsyncIterator[Case]:
    async with http_receivers(
        server, find=keys.ring.find, anonymous=ANONYMOUS if anonymous else None, with_pages=with_pages
    ) as made:
        yield Case(made, keys.ways_of_saying(anonymous=anonymous))
        assert made.in_flight.bytes_held == 0


def lines(headers: Headers) -> list[str]:
    return [f"{name}: {value}" for name, value in headers]


def tenants_produced(made: Receivers) -> set[str]:
    """Of all that was produced since it was last asked."""
    found = {
        record.tenant_id for message in made.producer.messages for record in TelemetryBatch.FromString(message.payload).records
    }
    made.producer.messages.clear()
    return found


def check_refusal(reason: int, answer: Response, sent: Sent) -> None:
    """Status and WWW-Authenticate; and nowhere anything of a key but its public id."""
    assert answer.status == REFUSED[reason].http, (sent, answer)
    assert answer.headers["www-authenticate"] == REFUSED[reason].www_authenticate, sent
    assert "retry-after" not in answer.headers
    for _, value in sent.headers:
        assert len(value) < 10 or value.rpartition(" ")[2].encode() not in answer.body


async def check_way(case: Case, raw: RawConnection, way: Way, sent: Sent) -> None:
    body = way.as_sent(way.body())
    await raw.send(post(way.path, way.content_type, body, *lines(sent.headers)))
    answer = await raw.response()
    if isinstance(sent.sends, str):
        assert answer.status == way.status, (sent, answer)
        assert tenants_produced(case.made) == {sent.sends}, sent
        return
    check_refusal(sent.sends, answer, sent)
    assert tenants_produced(case.made) == set(), sent
    error = told(way, answer.headers["content-type"], answer.body)
    assert REASON[sent.sends].meaning in error.message or sent.sends == INSUFFICIENT_SCOPE
    if way.is_otlp:
        assert error.code == REFUSED[sent.sends].grpc.value[0]
        assert error.retry_after_s is None
    else:
        assert error.error == REASON[sent.sends].name


@WAYS_BY_NAME
@ANONYMOUS_OR_NOT
async def test_who_may_send_over_http(keys: Keys, way: Way, anonymous: bool) -> None:
    """Records have the key's tenant. A sender without permission gets the protocol's own error, and nothing is kept."""
    async with listening(keys, "builtin", anonymous=anonymous) as case, connection(case.made.port) as raw:
        for sent in case.sent:
            await check_way(case, raw, way, sent)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[4], WAYS[5], WAYS[8]], ids=lambda way: way.name)
async def test_who_may_send_over_hypercorn(keys: Keys, way: Way) -> None:
    """The rules are those of the other server, tried by one route of each protocol."""
    async with listening(keys, "hypercorn", anonymous=False) as case, connection(case.made.port) as raw:
        for sent in case.sent:
            await check_way(case, raw, way, sent)


@EACH_SERVICE
@ANONYMOUS_OR_NOT
async def test_who_may_send_over_grpc(keys: Keys, service: Service, anonymous: bool) -> None:
    """Keys are metadata, as they are headers in HTTP. Refusals are trailers-only, with a Status that is not to be retried."""
    made = receivers(find=keys.ring.find, anonymous=ANONYMOUS if anonymous else None)
    async with (
        grpc_receivers(made) as (_, server),
        aio.insecure_channel(f"127.0.0.1:{server.port}", options=UNCOMPRESSED) as channel,
    ):
        for sent in keys.ways_of_saying(anonymous=anonymous):
            metadata = tuple((name.lower(), value) for name, value in sent.headers)
            if isinstance(sent.sends, str):
                assert await export(channel, service, service.body(), metadata=metadata) == b""
                assert tenants_produced(made) == {sent.sends}, sent
                continue
            error, status = await refused(channel, service, service.body(), metadata=metadata)
            assert error.code() == REFUSED[sent.sends].grpc, sent
            assert not status.details
            assert tenants_produced(made) == set(), sent
    assert made.in_flight.bytes_held == 0


@pytest.mark.parametrize("server", SERVERS)
@ANONYMOUS_OR_NOT
async def test_who_may_read(keys: Keys, server: str, anonymous: bool) -> None:
    """Nobody without a key, whether anonymous senders are allowed or not; with one, its own tenant."""
    async with (
        listening(keys, server, anonymous=anonymous, with_pages=True) as case,
        connection(case.made.port) as raw,
    ):
        for sent in case.sent:
            await raw.send("\r\n".join([f"GET {USAGE} HTTP/1.1", "Host: h", *lines(sent.headers), "", ""]).encode())
            answer = await raw.response()
            if isinstance(sent.reads, str):
                assert (answer.status, json.loads(answer.body)["tenant"]) == (200, sent.reads), (sent, answer)
                continue
            check_refusal(sent.reads, answer, sent)
            document = json.loads(answer.body)
            assert document.keys() == {"status", "error", "message"}
            assert (document["status"], document["error"]) == ("error", REASON[sent.reads].name)


@pytest.mark.parametrize("server", SERVERS)
async def test_a_key_of_any_bytes_is_refused(server: str) -> None:
    """Such a key is nobody's, and no byte of a header makes an error of ours."""
    async with http_receivers(server, anonymous=None) as made, connection(made.port) as raw:
        for value in (b"\xff\xfe", "ключ".encode(), b"isage_\t", bytes(range(0xA0, 0x100)), b"x" * 30_000):
            head, _, body = post("/v1/logs", PROTOBUF, otlp_logs()).partition(b"\r\n\r\n")
            await raw.send(head + b"\r\nX-API-Key: " + value + b"\r\n\r\n" + body)
            assert (await raw.response()).status == 401


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/v1/telemetry-types", "/docs", "/openapi.json"])
async def test_open_pages_need_no_key(path: str) -> None:
    """Probes, scrapers and people have none. A wrong one keeps nobody out either."""
    made = receivers(with_pages=True, anonymous=None)
    transport = httpx.ASGITransport(made.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
            assert (await client.get(path, headers=headers)).status_code == 200


async def test_a_refused_body_is_not_taken() -> None:
    """A sender without permission is refused by its head alone: what it would send is not waited for, and holds no memory."""
    async with http_receivers(anonymous=None) as made:
        for expect in ((), ("Expect: 100-continue",)):
            async with connection(made.port) as raw:
                await raw.send(post("/v1/logs", PROTOBUF, b"", *expect, length=10_000_000))
                assert (await raw.response()).status == 401
                assert made.in_flight.bytes_held == 0
        assert made.counted("infrasage_requests_refused_total", reason="missing_api_key") == 2


async def test_a_connection_goes_on_after_a_refusal() -> None:
    """Its next request, with a key, is served."""
    async with http_receivers(find={b"k": ANONYMOUS}.get, anonymous=None) as made, connection(made.port) as raw:
        body = otlp_logs(padding=200_000)
        await raw.send(post("/v1/logs", PROTOBUF, body))
        assert (await raw.response()).status == 401
        await raw.send(post("/v1/logs", PROTOBUF, body, "X-API-Key: k"))
        assert (await raw.response()).status == 200
