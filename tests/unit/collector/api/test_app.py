"""The pages: health, metrics, types, and the description of the native API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support.fakes.receiving import Receivers, receivers

from adapters.errors import REASONS
from collector.api.app import PAGE_PATHS
from collector.api.health import Health
from collector.app.worker_messages import no_answer
from collector.telemetry.aggregate import Snapshot
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[Receivers, httpx.AsyncClient]]:
    made = receivers(with_pages=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made.app), base_url="http://collector") as client:
        yield made, client


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        (Health("ok", "ok"), 200, "ok"),
        (Health("down", "ok"), 200, "degraded"),
        (Health("ok", "full"), 503, "unavailable"),
        (Health("down", "down"), 503, "unavailable"),
        (Health("ok", "disk full", "ok"), 503, "unavailable"),
        (Health("ok", "ok", "damaged"), 200, "degraded"),
        (Health("ok", "ok", "ok"), 200, "ok"),
        (Health("ok", "ok", is_stopping=True), 503, "stopping"),
        (Health("ok", "down", is_stopping=True), 503, "stopping"),
    ],
)
async def test_health_is_whether_telemetry_is_accepted(state: Health, code: int, status: str) -> None:
    """Without its store the gateway accepts, without its broker it can't."""
    async with asking() as (made, client):
        made.health[0] = state
        answer = await client.get("/healthz")
        assert answer.status_code == code
        assert answer.json() == {
            "status": status,
            "version": "1.2.0",
            "uptime_seconds": 3601,
            "clickhouse": state.clickhouse,
            "kafka": state.kafka,
            "log": state.log,
            "broker": state.broker,
            "store": state.store,
        }


async def test_the_types_are_listed_to_the_letter() -> None:
    async with asking() as (_, client):
        answer = await client.get("/api/v1/telemetry-types")
        assert answer.status_code == 200
        assert answer.text == '{"types":["metric","log","trace","event","profile","slo"],"default":"metric"}'


async def test_metrics_are_prometheus_text() -> None:
    async with asking() as (_, client):
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        for name, kind in (
            ("infrasage_ingestion_events", "counter"),
            ("infrasage_ingestion_batch_size", "histogram"),
            ("infrasage_http_request_duration_seconds", "histogram"),
            ("infrasage_dlq_depth", "gauge"),
            ("infrasage_validation_failures", "counter"),
        ):
            assert families[name].type == kind
            assert families[name].documentation


async def test_metrics_are_openmetrics_when_asked_for() -> None:
    async with asking() as (_, client):
        answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert list(openmetrics.text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("accept", ["", "*/*", ";;;", "application/openmetrics-text;version=x", "é", "text/html;q=x,"])
async def test_any_accept_header_gets_metrics(accept: str) -> None:
    async with asking() as (_, client):
        assert (await client.get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/usage"])
async def test_a_process_above_that_does_not_answer_is_no_defect(path: str) -> None:
    """503, which is sent again, and is no alert for a defect."""

    async def gather() -> Snapshot:
        raise no_answer("metrics")

    made = receivers(with_pages=True, gather=gather, find=lambda _: Caller("acme", Scope.READONLY, UNLIMITED, "k"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made.app), base_url="http://collector") as client:
        answer = await client.get(path, headers={"x-api-key": "k"})
        assert (503, "overloaded") == (answer.status_code, answer.json()["error"])
        assert "no metrics of all workers within 5 s" == answer.json()["message"]
        assert int(answer.headers["retry-after"]) >= 1


async def test_the_description_has_every_error_code_of_the_native_api() -> None:
    """Each under the status that it comes with, and none of other protocols."""
    async with asking() as (_, client):
        document = (await client.get("/openapi.json")).json()
        elsewhere = {
            "invalid_protobuf",
            "invalid_span_id",
            "invalid_labels",
            "invalid_histogram",
            "unspecified_temporality",
            "not_found",
            "invalid_parameter",
            "store_unavailable",
        }
        for path in ("/api/v1/telemetry", "/api/v1/telemetry/batch"):
            responses = document["paths"][path]["post"]["responses"]
            described = {
                name: status
                for status, response in responses.items()
                if status != "200"
                for name in response["content"]["application/json"]["examples"]
            }
            assert described.keys() == {reason.name for reason in REASONS} - elsewhere
            assert described["invalid_value"] == "400"
            assert described["payload_too_large"] == "413"
            assert described["storage_full"] == "503"
            assert "Retry-After" in responses["503"]["headers"]


async def test_the_description_holds_together() -> None:
    """Every reference in it leads somewhere."""
    async with asking() as (_, client):
        answer = await client.get("/openapi.json")
        document = answer.json()
        references = {part.split('"')[0] for part in answer.text.split('"$ref":"')[1:]}
        assert references
        for reference in references:
            node = document
            for key in reference.removeprefix("#/").split("/"):
                node = node[key]
        assert document["openapi"].startswith("3.")
        assert "/healthz" in document["paths"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_pages_load_nothing_from_elsewhere(path: str) -> None:
    async with asking() as (_, client):
        page = await client.get(path)
        assert page.status_code == 200
        assert "http://" not in page.text.replace("http://collector", "")
        assert "https://" not in page.text
        sources = [part.split('"')[0] for part in page.text.replace('href="', 'src="').split('src="')[1:]]
        assert sources
        for source in sources:
            assert (await client.get(source)).status_code == 200, source


@pytest.mark.parametrize("path", sorted(path for path in PAGE_PATHS if not path.endswith("/")))
async def test_pages_are_to_be_read_only(path: str) -> None:
    """Other methods are 405, in the native shape; and their requests are counted under their path."""
    async with asking() as (made, client):
        answer = await client.post(path, content=b"x")
        assert answer.status_code == 405
        assert answer.json()["error"] == "method_not_allowed"
        assert "GET" in answer.headers["allow"]
        assert made.counted("infrasage_http_requests_total", endpoint=path, code="405") == 1


async def test_a_file_that_is_not_there_is_404_in_the_native_shape() -> None:
    async with asking() as (made, client):
        # Other spellings of a file that is there are none, or they would be read from disk.
        paths = (
            "x",
            "..%2f..%2fcore.py",
            "%2e/swagger-ui.css",
            "/swagger-ui.css",
            "x%2f..%2fswagger-ui.css",
            "swagger-ui.css/",
        )
        for path in (f"/static-offline-docs/{name}" for name in paths):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"] == "not_found"
        assert made.counted("infrasage_http_requests_total", endpoint="/static-offline-docs/") == len(paths)
