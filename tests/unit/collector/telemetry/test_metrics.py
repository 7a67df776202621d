"""What is exposed: names, labels from closed sets, and both formats."""

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from support.fakes.receiving import counted

from adapters.errors import INVALID_JSON, REASONS
from adapters.record import TYPE_NAMES
from collector.broker.contract import Partition
from collector.telemetry.aggregate import combine
from collector.telemetry.aggregate import counted as outlives
from collector.telemetry.instruments import APPEND_ERRORS, STATUSES
from collector.telemetry.metrics import Metrics


def test_items_are_there_from_the_start() -> None:
    """Each type with each status at 0, and each reason: a rate over them has no gap at the first of its kind."""
    text = Metrics().expose("")[0].decode()
    for type_name in TYPE_NAMES:
        for status in STATUSES:
            assert f'infrasage_ingestion_events_total{{status="{status}",type="{type_name}"}} 0.0' in text
    for reason in REASONS:
        assert (f'infrasage_validation_failures_total{{reason="{reason.name}"}} 0.0' in text) == (reason.code < INVALID_JSON)
        assert f'infrasage_requests_refused_total{{reason="{reason.name}"}} 0.0' in text
    assert "infrasage_dlq_depth 0.0" in text


def test_requests_are_counted_by_endpoint_and_code() -> None:
    metrics = Metrics()
    endpoint = metrics.http_endpoint("/v1/logs")
    endpoint.answered(200, 0.2, 100)
    endpoint.answered(200, 0.3, 100)
    endpoint.answered(503, 0.1, 50)
    assert counted(metrics, "infrasage_http_requests_total", endpoint="/v1/logs", code="200") == 2
    assert counted(metrics, "infrasage_http_requests_total", endpoint="/v1/logs", code="503") == 1
    assert counted(metrics, "infrasage_http_request_body_bytes_total", endpoint="/v1/logs") == 250
    assert counted(metrics, "infrasage_http_request_duration_seconds_sum", endpoint="/v1/logs") == 0.6
    metrics.grpc_method("S/Export").answered("OK", 0.1, 10)
    assert counted(metrics, "infrasage_grpc_requests_total", method="S/Export", code="OK") == 1


def test_the_log_and_the_writer_are_counted() -> None:
    metrics = Metrics()
    metrics.log_lag({Partition("infrasage.logs", 0): 5, Partition("infrasage.logs", 1): 6, Partition("infrasage.traces", 0): 7})
    metrics.log_lag({Partition("infrasage.logs", 0): 5, Partition("infrasage.logs", 1): 3})
    metrics.log_bytes(1000, 8000)
    metrics.written("infrasage.logs", 3, 300, 0.25)
    metrics.write_failed("infrasage.logs", "unavailable")
    metrics.dead_letters(4)
    assert counted(metrics, "infrasage_log_lag_messages", topic="infrasage.logs", partition="0") == 5
    assert counted(metrics, "infrasage_log_lag_messages", topic="infrasage.logs", partition="1") == 3
    assert 'topic="infrasage.traces",' not in metrics.expose("")[0].decode(), (
        "a partition that is another's now is not ours to show"
    )
    assert counted(metrics, "infrasage_log_bytes") == 1000
    assert counted(metrics, "infrasage_writer_messages_total", topic="infrasage.logs") == 3
    assert counted(metrics, "infrasage_writer_bytes_total", topic="infrasage.logs") == 300
    assert counted(metrics, "infrasage_writer_insert_duration_seconds_sum", topic="infrasage.logs") == 0.25
    assert counted(metrics, "infrasage_writer_errors_total", topic="infrasage.logs", kind="unavailable") == 1
    assert counted(metrics, "infrasage_dlq_depth") == 4


def test_appends_and_batches_are_counted() -> None:
    metrics = Metrics()
    metrics.appended(0.5)
    metrics.append_failed("unavailable", 2)
    metrics.produced("infrasage.logs", 3, 300, 0.25)
    metrics.produce_failed("infrasage.logs", "timeout")
    metrics.up("broker", True)
    assert counted(metrics, "infrasage_append_duration_seconds_count") == 2
    for kind in APPEND_ERRORS:
        assert counted(metrics, "infrasage_append_errors_total", kind=kind) == (kind == "unavailable")
    assert counted(metrics, "infrasage_produce_messages_total", topic="infrasage.logs") == 3
    assert counted(metrics, "infrasage_produce_bytes_total", topic="infrasage.logs") == 300
    assert counted(metrics, "infrasage_produce_duration_seconds_sum", topic="infrasage.logs") == 0.25
    assert counted(metrics, "infrasage_produce_errors_total", topic="infrasage.logs", kind="timeout") == 1
    assert counted(metrics, "infrasage_up", part="broker") == 1
    assert 'infrasage_up{part="store"}' not in metrics.expose("")[0].decode(), "nothing is said of what is not used"


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_a_snapshot_is_shown_as_the_metrics_are(accept: str) -> None:
    """One process, combined with nobody, shows the same page; only its own use of processor and memory goes on."""
    metrics = Metrics()
    metrics.http_endpoint("/v1/logs").answered(200, 0.2, 100)
    metrics.log_lag({Partition("infrasage.logs", 0): 5})

    def page(text: bytes) -> list[str]:
        return [line for line in text.decode().splitlines() if not line.startswith(("process_", "python_gc_"))]

    assert page(metrics.expose(accept)[0]) == page(metrics.expose(accept, combine([metrics.snapshot()]))[0])


def test_several_processes_are_added_up() -> None:
    """Counters, histograms and gauges are sums; times are the earliest; `up` is whether all are; and it is valid."""
    first, second = Metrics(), Metrics()
    for metrics, up in ((first, True), (second, False)):
        metrics.http_endpoint("/v1/logs").answered(200, 0.2, 100)
        metrics.watch_in_flight(lambda: 10, 100)
        metrics.up("broker", up)
        metrics.dead_letters(4)
    second.http_endpoint("/v1/traces").answered(503, 0.2, 100)
    snapshots = [first.snapshot(), second.snapshot()]
    text, _ = first.expose("application/openmetrics-text; version=1.0.0", combine(snapshots))
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(text.decode())}  # type: ignore[no-untyped-call]

    def value(name: str, family: str, **labels: str) -> float:
        (found,) = [each.value for each in families[family].samples if each.name == name and each.labels == labels]
        return float(found)

    assert value("infrasage_http_requests_total", "infrasage_http_requests", endpoint="/v1/logs", code="200") == 2
    assert value("infrasage_http_requests_total", "infrasage_http_requests", endpoint="/v1/traces", code="503") == 1
    duration = "infrasage_http_request_duration_seconds"
    assert value(f"{duration}_count", duration, endpoint="/v1/logs") == 2
    assert value(f"{duration}_bucket", duration, endpoint="/v1/logs", le="0.25") == 2
    assert value("infrasage_in_flight_bytes", "infrasage_in_flight_bytes") == 20
    assert value("infrasage_processes", "infrasage_processes") == 2
    assert value("infrasage_up", "infrasage_up", part="broker") == 0
    assert value("infrasage_dlq_depth", "infrasage_dlq_depth") == 4
    assert "infrasage_http_requests" in {family.name for family in outlives(snapshots[0])}
    assert "infrasage_in_flight_bytes" not in {family.name for family in outlives(snapshots[0])}


def test_gauges_are_read_at_each_scrape() -> None:
    metrics = Metrics()
    values = [1]
    metrics.watch_in_flight(lambda: values[0], 100)
    metrics.watch_connections(lambda: values[0] + 1, 4096)
    for values[0] in (1, 7):
        assert counted(metrics, "infrasage_in_flight_bytes") == values[0]
        assert counted(metrics, "infrasage_http_connections") == values[0] + 1


def test_every_metric_of_ours_has_help_and_is_valid_openmetrics() -> None:
    text, content_type = Metrics().expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = list(openmetrics.text_string_to_metric_families(text.decode()))  # type: ignore[no-untyped-call]
    ours = [family for family in families if family.name.startswith("infrasage_")]
    assert len(ours) > 15
    assert all(family.documentation for family in ours)
