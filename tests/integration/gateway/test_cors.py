"""Pages of other origins that send telemetry: preflight requests, what answers say, and keys that are for pages alone.

Over HTTP/1.1 by both servers and over HTTP/2. tests/clients/test_browser.py has a real browser.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio
from support.fakes.receiving import (
    Receivers,
    Response,
    connection,
    grpc_receivers,
    http_receivers,
    otlp_logs,
    post,
    receivers,
)
from support.http2 import http2
from support.otlp_grpc import LOGS, export
from support.ways import JSON, WAYS_BY_NAME, Way

from collector.broker.contract import BrokerDown
from collector.tenancy.identity import Caller
from collector.tenancy.origins import Origins
from collector.tenancy.plans import UNLIMITED, Plan, Rate
from collector.tenancy.scopes import Scope

APP = "https://app.example.com"
OTHER = "https://other.test"
ALLOWED: dict[str, Any] = {"cors_origins": f"{APP},http://localhost:*"}
PREFLIGHT = (
    ("origin", APP),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "content-type,x-api-key"),
)
Send = Callable[..., Awaitable[Response]]


@asynccontextmanager
async def over_http_1(made: Receivers) -> AsyncIterator[Send]:
    async def send(method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> Response:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        async with connection(made.port) as raw:
            await raw.send("\r\n".join([*lines, "", ""]).encode() + body)
            return await raw.response()

    yield send


@asynccontextmanager
async def over_http_2(made: Receivers) -> AsyncIterator[Send]:
    async with http2(made.port) as client:

        async def send(method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> Response:
            return await client.response(client.request(path, "", body, *headers, method=method))

        yield send


EACH_SERVER = pytest.mark.parametrize(
    ("server", "speak"), [("builtin", over_http_1), ("hypercorn", over_http_1), ("builtin", over_http_2)]
)


def cors_of(answer: Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@EACH_SERVER
@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs/", "/api/v1/telemetry", "/api/v1/telemetry/batch", "/wrong"])
async def test_a_preflight_is_answered(server: str, speak: Any, path: str) -> None:
    """204, without a key, with what may be sent and for how long that is so; of a wrong path the page hears when it sends."""
    async with http_receivers(server, anonymous=None, cors_max_age_s=60, **ALLOWED) as made, speak(made) as send:
        answer = await send("OPTIONS", path, b"", *PREFLIGHT)
        assert (204, b"") == (answer.status, answer.body)
        said = cors_of(answer)
        allowed = said.pop("access-control-allow-headers").split(", ")
        assert {
            "access-control-allow-origin": APP,
            "access-control-allow-credentials": "true",
            "access-control-allow-methods": "POST",
            "access-control-max-age": "60",
        } == said
        assert {
            *("content-type", "content-encoding", "x-api-key", "authorization", "idempotency-key"),
            *("traceparent", "tracestate", "baggage"),
        } <= set(allowed)
        assert "origin" in answer.headers["vary"]


@EACH_SERVER
async def test_another_origin_hears_nothing(server: str, speak: Any) -> None:
    """Its preflight is refused with what to change; what it sends all the same is taken, as from anybody, but can't be read."""
    async with http_receivers(server, **ALLOWED) as made, speak(made) as send:
        answer = await send("OPTIONS", "/v1/logs", b"", ("origin", OTHER), *PREFLIGHT[1:])
        assert (403, {}) == (answer.status, cors_of(answer))
        assert f"pages of origin {OTHER} may not send; http.cors_origins lists those that may" in answer.body.decode()
        taken = await send("POST", "/v1/logs", otlp_logs(), ("origin", OTHER), ("content-type", "application/x-protobuf"))
        assert (200, {}, "origin") == (taken.status, cors_of(taken), taken.headers["vary"])


@EACH_SERVER
async def test_without_the_setting_there_is_no_cors(server: str, speak: Any) -> None:
    """No CORS is the default."""
    async with http_receivers(server) as made, speak(made) as send:
        answer = await send("OPTIONS", "/v1/logs", b"", *PREFLIGHT)
        assert (405, {}) == (answer.status, cors_of(answer))
        taken = await send("POST", "/v1/logs", otlp_logs(), ("origin", APP), ("content-type", "application/x-protobuf"))
        assert (200, {}) == (taken.status, cors_of(taken))


@EACH_SERVER
@WAYS_BY_NAME
async def test_every_answer_says_that_the_origin_may_read_it(server: str, speak: Any, way: Way) -> None:
    """This holds for what was taken, and for every error. A page may read our own headers, too."""
    limited = Caller("small", Scope.INGEST, Plan("Small", Rate(1, 1), None, None), "k3")
    async with (
        http_receivers(server, find={b"SMALL": limited}.get, body_bytes_max=2000, **ALLOWED) as made,
        speak(made) as send,
    ):

        async def told(path: str, body: bytes, *headers: tuple[str, str]) -> int:
            answer = await send("POST", path, body, ("origin", APP), ("content-type", way.content_type), *headers)
            assert answer.headers["access-control-allow-origin"] == APP
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "x-infrasage-batch-id" in answer.headers["access-control-expose-headers"]
            assert "retry-after" in answer.headers["access-control-expose-headers"]
            return int(answer.status)

        body = way.as_sent(way.body(good=1))
        assert way.status == await told(way.path, body)
        assert 400 == await told(way.path, b"\xff{")
        assert 401 == await told(way.path, body, ("x-api-key", "isage_wrong"))
        assert 404 == await told("/v1/wrong", body)
        assert 413 == await told(way.path, bytes(2001))
        assert 415 == await told(way.path, body, ("content-encoding", "lz4"))
        assert way.status == await told(way.path, body, ("x-api-key", "SMALL"))
        assert 429 == await told(way.path, body, ("x-api-key", "SMALL"))
        made.producer.error = BrokerDown("away")
        assert 503 == await told(way.path, body)
        put = await send("PUT", way.path, body, ("origin", APP))
        assert (405, APP) == (put.status, put.headers["access-control-allow-origin"])


async def test_answers_of_the_servers_themselves_say_it_too() -> None:
    """A head that is too large or malformed, over both protocols; and where every page may send, a refused connection."""
    large = ("x", "a" * 3000)
    async with http_receivers(header_bytes_max=2048, **ALLOWED) as made:
        for speak in (over_http_1, over_http_2):
            async with speak(made) as send:
                answer = await send("POST", "/v1/logs", b"", ("origin", APP), large)
                assert (431, APP) == (answer.status, answer.headers["access-control-allow-origin"])
                other = await send("POST", "/v1/logs", b"", ("origin", OTHER), large)
                assert (431, {}) == (other.status, cors_of(other))
        async with connection(made.port) as raw:
            await raw.send(f"POST /v1/logs HTTP/1.1\r\nOrigin: {APP}\r\nContent-Length: 0\r\n\r\n".encode())
            answer = await raw.response()
            assert (400, APP) == (answer.status, answer.headers["access-control-allow-origin"])
    async with http_receivers(connections_max=1, cors_origins="*") as made, connection(made.port) as first:
        await first.send(post("/v1/logs", "application/x-protobuf", otlp_logs()))
        assert (await first.response()).status == 200
        async with connection(made.port) as second:
            answer = await second.response()
            assert (503, "*") == (answer.status, answer.headers["access-control-allow-origin"])


@EACH_SERVER
async def test_any_header_and_a_private_network_where_they_are_allowed(server: str, speak: Any) -> None:
    """`*` allows what is asked for, by its name, since a browser takes no `*` beside credentials."""
    async with http_receivers(server, cors_origins="*", cors_headers="X-One,*") as made, speak(made) as send:
        asked = ("access-control-request-headers", "x-two, x-three,b@d")
        network = ("access-control-request-private-network", "true")
        answer = await send("OPTIONS", "/v1/logs", b"", ("origin", OTHER), PREFLIGHT[1], asked, network)
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert ["x-one", "x-two", "x-three"] == [name for name in allowed if name.startswith(("x-one", "x-t", "b@"))]
        assert "true" == answer.headers["access-control-allow-private-network"]
        assert OTHER == answer.headers["access-control-allow-origin"]
        for size, is_there in ((1024, True), (1025, False)):
            asked = ("access-control-request-headers", "x-two," + "b" * (size - 6))
            answer = await send("OPTIONS", "/v1/logs", b"", ("origin", OTHER), PREFLIGHT[1], asked)
            assert is_there == ("x-two" in answer.headers["access-control-allow-headers"].split(", "))


OF_PAGES = Caller("acme", Scope.INGEST, UNLIMITED, "k1", Origins(["https://*.example.com"]))
KEYS = {b"PAGES": OF_PAGES, b"ANY": Caller("acme", Scope.INGEST, UNLIMITED, "k2")}


@EACH_SERVER
@WAYS_BY_NAME
async def test_a_key_may_be_for_pages_of_some_origins_alone(server: str, speak: Any, way: Way) -> None:
    """A request from elsewhere, or from no page, is refused with the origins that the key is for."""
    async with (
        http_receivers(server, find=KEYS.get, anonymous=None, cors_origins="*") as made,
        speak(made) as send,
    ):
        body = way.as_sent(way.body(good=1))
        head = (("content-type", way.content_type), ("x-api-key", "PAGES"))
        assert way.status == (await send("POST", way.path, body, *head, ("origin", APP))).status
        for origin in ((("origin", OTHER),), ()):
            answer = await send("POST", way.path, body, *head, *origin)
            assert 403 == answer.status
            assert b"key k1 is for pages of https://*.example.com" in answer.body
        assert way.status == (await send("POST", way.path, body, head[0], ("x-api-key", "ANY"))).status


async def test_a_key_for_pages_does_not_send_over_grpc() -> None:
    """No page speaks gRPC."""
    made = receivers(find=KEYS.get, anonymous=None)
    async with grpc_receivers(made) as (_, server), aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(aio.AioRpcError) as refused:
            await export(channel, LOGS, otlp_logs(), metadata=[("x-api-key", "PAGES")])
        assert grpc.StatusCode.PERMISSION_DENIED == refused.value.code()
        await export(channel, LOGS, otlp_logs(), metadata=[("x-api-key", "ANY")])


@EACH_SERVER
@WAYS_BY_NAME
async def test_a_key_in_the_query_counts_only_where_the_setting_says_so(server: str, speak: Any, way: Way) -> None:
    """Behind headers; one that comes twice is nobody's, and an empty one is wrong."""
    body = way.as_sent(way.body(good=1))
    head = ("content-type", way.content_type)
    for query_key in (True, False):
        async with (
            http_receivers(server, find=KEYS.get, anonymous=None, query_key=query_key) as made,
            speak(made) as send,
        ):
            for query, headers, status in (
                ("api_key=ANY", (), way.status),
                ("a=1&api_key=%41NY&b", (), way.status),
                ("api_key=ANY&api_key=ANY", (), 401),
                ("api_key=", (), 401),
                ("key=ANY", (), 401),
                ("&" * 1012 + "api_key=wrong", (("x-api-key", "ANY"),), way.status),
                ("&" * 1013 + "api_key=ANY", (), way.status),
                ("&" * 1014 + "api_key=ANY", (), 400),
                ("api_key=ANY", (("x-api-key", "wrong"),), 401),
                ("api_key=wrong", (("x-api-key", "ANY"),), way.status),
            ):
                answer = await send("POST", f"{way.path}?{query}", body, head, *headers)
                wanted = status if query_key or headers else 401
                if wanted == 400:
                    assert b"the query of the address is 1025 bytes; at most 1024 are searched for a key" in answer.body
                assert (query, wanted) == (query, answer.status)
                assert b"ANY" not in answer.body


async def test_a_beacon_is_taken() -> None:
    """navigator.sendBeacon sends a Blob of JSON, credentials always, the key in the query."""
    async with http_receivers(find=KEYS.get, anonymous=None, query_key=True, **ALLOWED) as made, over_http_1(made) as send:
        body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "b"}}]}]}]}).encode()
        path = "/v1/logs?api_key=ANY"
        preflight = await send(
            "OPTIONS", path, b"", ("origin", APP), PREFLIGHT[1], ("access-control-request-headers", "content-type")
        )
        assert (204, "true") == (preflight.status, preflight.headers["access-control-allow-credentials"])
        answer = await send("POST", path, body, ("origin", APP), ("content-type", JSON), ("cookie", "a=b"))
        assert (200, APP) == (answer.status, answer.headers["access-control-allow-origin"])
        assert 1 == made.producer.item_count()
