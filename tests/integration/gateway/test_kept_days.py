"""The store's retention where it is shorter than the window of times: what it would delete at once is never accepted."""

from dataclasses import replace

import httpx
import pytest
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.fakes.receiving import NOW_UNIX_NANO, ONE_WINDOW, Receivers, grpc_receivers, http_receivers, receivers
from support.otlp_grpc import EACH_SERVICE, Service, export
from support.ways import WAYS_BY_NAME, Way

from adapters.record import LOGS, METRICS, TRACES
from collector.ingest.validate import KeptDays
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

WIDE = {"past_max_s": 30 * 86_400}
KEPT = "more than 45h in the past (rows are kept for 2 days)"


async def answered(made: Receivers, way: Way, late: int) -> httpx.Response:
    """The answer to a body with one good item and `late` items of two days ago; of a single record, that one."""
    body = way.body(good=0 if way.path == "/api/v1/telemetry" and late else 1, late=late)
    headers = {"content-type": way.content_type}
    if way.is_remote_write:
        headers["content-encoding"] = "snappy"
    async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        return await http.post(way.path, content=way.as_sent(body), headers=headers)


@WAYS_BY_NAME
async def test_what_the_store_would_delete_is_rejected(way: Way) -> None:
    """It is rejected with its reason on every route, in every encoding. What is kept for longer is accepted."""
    days = {METRICS: 2, LOGS: 2, TRACES: 2}
    async with http_receivers(validation=WIDE, kept_days=KeptDays(days, {})) as made:
        answer = await answered(made, way, late=1)
        assert 1 == made.counted("infrasage_validation_failures_total", reason="timestamp_too_old")
        assert int(way.path != "/api/v1/telemetry") == made.producer.item_count()
        assert KEPT.encode() in answer.content or answer.status_code == 204
    async with http_receivers(validation=WIDE, kept_days=KeptDays(days, {"anonymous": 3})) as made:
        assert way.status == (await answered(made, way, late=1)).status_code
        assert 0 == made.counted("infrasage_validation_failures_total")


@EACH_SERVICE
async def test_over_grpc_the_sender_learns_it(service: Service) -> None:
    """The answer is a partial success, which names the days."""
    made = receivers(validation=WIDE, kept_days=KeptDays({METRICS: 2, LOGS: 2, TRACES: 2}, {}))
    async with grpc_receivers(made) as (_, server), aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = service.response.FromString(await export(channel, service, service.body(good=2, late=3)))
    assert 3 == getattr(answer.partial_success, service.rejected_field)
    assert KEPT in answer.partial_success.error_message
    assert 2 == made.producer.item_count()


@pytest.mark.parametrize("size", [1, 1_000])
async def test_a_native_batch_has_a_window_for_each_signal(size: int) -> None:
    """Metrics go after two days, and logs and events after five; whichever way records are read, in small bodies and large."""
    old = "2026-04-07T12:00:00Z"
    both = [
        {"service_id": "s", "type": type_, "metric_name": "m", "value": 1.5, "body": "b", "timestamp": old}
        for type_ in ("metric", "log", "event", "trace", "profile", "slo")
    ]
    plain = [
        {"service_id": "s", "metric_name": "m", "value": 1.5, "timestamp": old},
        {"service_id": "s", "type": "log", "body": "b", "timestamp": old},
    ]
    async with http_receivers(validation=WIDE, kept_days=KeptDays({METRICS: 2, LOGS: 5}, {})) as made:
        async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
            answer = (await http.post("/api/v1/telemetry/batch", json=(both + plain) * size)).json()
        assert (3 * size, 5 * size) == (answer["queued"], answer["failed"])
        assert 3 * size == sum(len(record.log_records) for record in made.producer.records())


@pytest.mark.parametrize(("days", "accepted"), [(9, 1), (7, 0)])
async def test_a_row_goes_by_its_own_time(days: int, accepted: int) -> None:
    """A log record of eight days ago that was observed just now."""
    request = ExportLogsServiceRequest()
    own = NOW_UNIX_NANO - 8 * 86_400 * 10**9
    request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=own, observed_time_unix_nano=NOW_UNIX_NANO)
    headers = {"content-type": "application/x-protobuf"}
    async with http_receivers(kept_days=KeptDays({LOGS: days}, {})) as made:
        async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
            await http.post("/v1/logs", content=request.SerializeToString(), headers=headers)
        assert accepted == made.producer.item_count()


def anonymous(past_max_s: int) -> Caller:
    return Caller("anonymous", Scope.INGEST, replace(UNLIMITED, past_max_s=past_max_s), "")


@pytest.mark.parametrize(("plan_days", "settings_days", "taken"), [(3, 1, True), (1, 30, False)])
@WAYS_BY_NAME
async def test_the_window_of_a_plan_comes_before_the_settings(
    way: Way, plan_days: int, settings_days: int, taken: bool
) -> None:
    """This holds on every route and in every encoding, whether it is wider or narrower."""
    settings = dict.fromkeys(("past_max_s", *ONE_WINDOW), settings_days * 86400)
    async with http_receivers(validation=settings, anonymous=anonymous(plan_days * 86_400)) as made:
        answer = await answered(made, way, late=1)
        assert int(not taken) == made.counted("infrasage_validation_failures_total", reason="timestamp_too_old")
        assert taken == (way.status == answer.status_code and b"past" not in answer.content)


@pytest.mark.parametrize(("plan_days", "settings_days", "taken"), [(3, 1, True), (1, 30, False)])
@EACH_SERVICE
async def test_the_window_of_a_plan_comes_before_the_settings_over_grpc(
    service: Service, plan_days: int, settings_days: int, taken: bool
) -> None:
    """This holds as over HTTP."""
    settings = dict.fromkeys(("past_max_s", *ONE_WINDOW), settings_days * 86400)
    made = receivers(validation=settings, anonymous=anonymous(plan_days * 86_400))
    async with grpc_receivers(made) as (_, server), aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = service.response.FromString(await export(channel, service, service.body(good=2, late=3)))
    assert (0 if taken else 3) == getattr(answer.partial_success, service.rejected_field)
