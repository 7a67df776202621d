"""The log of requests over both protocols: one line for each request, if that is set, and their outcomes by tenant."""

import time
from typing import Any

import httpx
import pytest
from grpc import aio
from structlog.testing import capture_logs
from support.fakes.receiving import NOW, grpc_receivers, http_receivers, otlp_logs, receivers
from support.otlp_grpc import EACH_SERVICE, Service, export
from support.ways import SERVERS, WAYS_BY_NAME, Way

from collector.receivers.sender_log import SenderLog
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

KEYS = {b"SECRET": Caller("acme", Scope.INGEST, UNLIMITED, "k1")}


@pytest.mark.parametrize("server", SERVERS)
@WAYS_BY_NAME
async def test_each_request_is_a_line_without_its_key(server: str, way: Way) -> None:
    """A line has route, answer, tenant and size, whatever the outcome, and neither key nor query. Pages have lines, too."""
    async with (
        http_receivers(server, find=KEYS.get, anonymous=None, query_key=True, with_pages=True) as made,
        httpx.AsyncClient(base_url=made.url, timeout=20) as http,
    ):
        made.app.receiver.logs_requests = True
        body = way.as_sent(way.body(good=1))
        headers = {"content-type": way.content_type}
        with capture_logs() as lines:
            await http.post(f"{way.path}?api_key=SECRET", content=body, headers=headers)
            await http.post(way.path, content=body, headers=headers | {"x-api-key": "WRONGSECRET"})
            await http.post("/v1/none?api_key=SECRET", content=body, headers=headers)
            await http.get("/healthz?api_key=SECRET")
        taken, refused, nowhere, page = (line for line in lines if line["event"] == "request")
        assert {
            "route": way.path,
            "code": way.status,
            "tenant": "acme",
            "key": "k1",
            "bytes": len(body),
        }.items() <= taken.items()
        assert (1, 0) == (taken["accepted"], taken["rejected"])
        assert taken["ms"] > 0
        assert (way.path, 401, False) == (refused["route"], refused["code"], "tenant" in refused)
        assert ("other", 404) == (nowhere["route"], nowhere["code"])
        assert ("/healthz", "GET", 200) == (page["route"], page["method"], page["code"])
        assert "SECRET" not in str(lines)
        made.app.receiver.logs_requests = False
        with capture_logs() as lines:
            await http.post(way.path, content=body, headers=headers)
        assert [] == lines


@EACH_SERVICE
async def test_each_call_is_a_line(service: Service) -> None:
    """A call has the same line as a request over HTTP, with gRPC's own code."""
    made = receivers(find=KEYS.get, anonymous=None)
    async with grpc_receivers(made) as (_, server), aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        server.receiver.logs_requests = True
        with capture_logs() as lines:
            await export(channel, service, service.body(good=2, late=1), metadata=[("x-api-key", "SECRET")])
            with pytest.raises(aio.AioRpcError):
                await export(channel, service, service.body(), metadata=[("x-api-key", "WRONGSECRET")])
        taken, refused = (line for line in lines if line["event"] == "request")
        assert {"code": "OK", "tenant": "acme", "key": "k1", "accepted": 2, "rejected": 1}.items() <= taken.items()
        assert service.name in taken["route"]
        assert "UNAUTHENTICATED" == refused["code"]
        assert "SECRET" not in str(lines)


async def test_what_was_not_taken_is_noted_over_both_protocols() -> None:
    """Rejected items and refused requests are counted by tenant and by reason."""
    made = receivers(find=KEYS.get)
    log = SenderLog(10, time.monotonic)
    record: dict[str, Any] = {"service_id": "s", "metric_name": "m", "value": "x", "timestamp": NOW}
    async with (
        grpc_receivers(made) as (_, server),
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        http_receivers(find=KEYS.get) as over_http,
        httpx.AsyncClient(base_url=over_http.url, timeout=20) as http,
    ):
        for receiver in (server.receiver, over_http.app.receiver):
            receiver.sender_log = log
        call: Any = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        await call(otlp_logs(good=1, late=3), timeout=20, metadata=[("x-api-key", "SECRET")])
        await http.post("/api/v1/telemetry", json=record, headers={"x-api-key": "SECRET"})
        await http.post("/v1/logs", content=b"{", headers={"content-type": "application/json"})
        await http.post("/v1/logs", json={"resourceSpans": [{}]})
        await http.post("/v1/logs", content=b"", headers={"x-api-key": "WRONGSECRET", "content-type": "application/json"})
    with capture_logs() as lines:
        log.write()
    by_tenant = {line["tenant"]: line for line in lines}
    assert {"timestamp_too_old": 3, "invalid_value": 1} == by_tenant["acme"]["rejected_items"]
    assert {"invalid_json": 1} == by_tenant["anonymous"]["refused_requests"]
    assert {"all": 1} == by_tenant["anonymous"]["unread_requests"]
    assert "which is for /v1/traces" in by_tenant["anonymous"]["example"]
    assert {"invalid_api_key": 1} == by_tenant["(unknown)"]["refused_requests"]
    assert "SECRET" not in str(lines)
