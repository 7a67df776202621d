"""What was repaired is reported to the sender, counted and on the receipt, whatever it came by: over HTTP and gRPC."""

import json
from typing import Any

import httpx
import pytest
from grpc import aio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from support.fakes.receiving import Receivers, grpc_receivers, http_receivers, receivers
from support.otlp_grpc import EACH_SERVICE, Service
from support.ways import JSON, SERVERS, WAYS_BY_NAME, Way

from collector.records.dead_letter import Caps

TEXT = "1 invalid_text (a text is not UTF-8"
# A text of each body, and the same spoilt. Of the native API both are of the service's name.
SPOILT = {
    "/api/v1/telemetry": (b'"payment-api"', b'"payment\xe9api"'),
    "/api/v1/telemetry/batch": (b'"payment-api"', b'"payment\\ud800"'),
    "/v1/metrics": (b'"m"', b'"m\xff"'),
    "/v1/logs": (b'"b"', b'"\\udc00"'),
    "/v1/traces": (b'"s"', b'"\xe9"'),
}


def spoilt(way: Way, late: int = 0) -> bytes:
    if way.content_type == JSON:
        body = way.body(good=2 if way.path != "/api/v1/telemetry" else 1, late=late).replace(*SPOILT[way.path], 1)
    else:
        body = (
            way.body(good=2, late=late, padding=7)
            .replace(b"xxxxxxx", b"ab\xff\xfe\xe9yz", 1)
            .replace(b"yyyyyyyy", b"caf\xe9yyyy")
        )
    assert body != way.body(good=2, late=late)
    return body


def receipts(made: Receivers) -> list[dict[str, int]]:
    return [
        {each.reason: each.count for each in record.receipt.repaired}
        for record in made.producer.records()
        if record.receipt.received
    ]


@pytest.mark.parametrize("server", SERVERS)
@WAYS_BY_NAME
async def test_http(server: str, way: Way) -> None:
    """Nothing is refused; a header says it on every route, and OTLP's partial success as a warning."""
    async with http_receivers(server) as made, httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        answer = await http.post(way.path, content=way.as_sent(spoilt(way)), headers={"content-type": way.content_type})
        assert way.status == answer.status_code
        assert "invalid_text=1" == answer.headers["x-infrasage-repaired"]
        if way.is_otlp and way.content_type == JSON:
            [partial] = json.loads(answer.content).values()
            assert TEXT in partial["errorMessage"]
            assert "0" == next(value for name, value in partial.items() if name.startswith("rejected"))
        elif way.is_otlp:
            partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
            assert (0, True) == (partial.rejected_data_points, partial.error_message.startswith(f"repaired: {TEXT}"))
        assert [{"invalid_text": 1}] == receipts(made)
        assert 1 == made.counted("infrasage_repaired_total", reason="invalid_text")
        assert 0 == made.counted("infrasage_ingestion_events_total", status="rejected")
        if way.path != "/api/v1/telemetry":
            assert 2 == made.producer.item_count()


@EACH_SERVICE
async def test_grpc(service: Service) -> None:
    """Trailing metadata has what HTTP's headers have; with rejected items beside it, both are reported."""
    async with (
        grpc_receivers(receivers(caps=Caps(1, 1))) as (made, server),
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call: Any = channel.unary_unary(service.method)
        body = service.body(good=2, late=1, padding=7).replace(b"xxxxxxx", b"ab\xff\xfe\xe9yz", 1)
        answering = call(body, timeout=20)
        partial = service.response.FromString(await answering).partial_success
        metadata = dict(await answering.trailing_metadata())
        assert ("invalid_text=1", True) == (metadata["x-infrasage-repaired"], "x-infrasage-batch-id" in metadata)
        assert "1" == metadata["x-infrasage-rejected-not-kept"]
        assert 36 == len(metadata["x-infrasage-batch-id"])
        assert 1 == getattr(partial, service.rejected_field)
        assert partial.error_message.startswith("1 of 3 ")
        assert f"; repaired: {TEXT}" in partial.error_message
        assert [{"invalid_text": 1}] == receipts(made)
        answering = call(service.body(good=2), timeout=20)
        await answering
        assert ["x-infrasage-batch-id"] == [name for name, _ in await answering.trailing_metadata()]
