"""Makes the dashboards, deploy/grafana/dashboards/*.json. With --check, fails if a file differs from the generated text.

Import the dashboards into any Grafana, or let docker-compose.yaml provision them. Each needs a data source: a Prometheus that
scrapes the collector (Flow, Delivery, Tenants), or ClickHouse by its plugin (Store).
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

OUT: Final = Path(__file__).parent / "dashboards"
CLICKHOUSE_PLUGIN: Final = "grafana-clickhouse-datasource"

# Widths and heights in Grafana's units. A dashboard is 24 units wide.
_HALF: Final = 12
_QUARTER: Final = 6
_TALL: Final = 8
_LOW: Final = 4


class Line(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""


class Sql(builder.Builder[variants.Dataquery], variants.Dataquery):
    """A query of the ClickHouse plugin, for which the SDK has no class. `kind` is timeseries or table."""

    def __init__(self, sql: str, kind: str) -> None:
        self._sql: Final = sql
        self._kind: Final = kind

    def build(self) -> "Sql":
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "refId": "A",
            "editorType": "sql",
            "queryType": self._kind,
            "format": 0 if self._kind == "timeseries" else 1,
            "rawSql": self._sql,
        }


def _graph(title: str, description: str, unit: str, *lines: Line, width: int = _HALF, stacked: bool = False) -> Any:
    """Return a panel of time series."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).min(0).span(width).height(_TALL)
    panel.fill_opacity(20 if stacked else 0)
    panel.legend(_legend())
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    return _with(panel, lines)


def _by_reason(title: str, description: str, counter: str) -> Any:
    """Return a panel with the growth of a counter a second, by its label `reason`."""
    return _graph(title, description, "short", Line(f"{_rate(counter, 'reason')} > 0", "{{reason}}"), stacked=True)


def _legend() -> Any:
    return (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )


def _number(title: str, description: str, unit: str, *lines: Line) -> Any:
    """Return a panel that shows one number for each query."""
    panel = stat.Panel().title(title).description(description).unit(unit).span(_QUARTER).height(_LOW)
    return _with(panel.graph_mode(common.BigValueGraphMode.AREA), lines)


def _with(panel: Any, lines: tuple[Line, ...]) -> Any:
    panel.datasource(DataSourceRef("prometheus", "${prometheus}"))
    for index, line in enumerate(lines):
        query = prometheus.Dataquery().expr(line.expr).legend_format(line.legend or "__auto").ref_id(chr(ord("A") + index))
        panel.with_target(query)
    return panel


def _sql_graph(title: str, description: str, unit: str, sql: str) -> Any:
    """Return a panel of time series, by SQL."""
    panel = timeseries.Panel().title(title).description(description).unit(unit).span(_HALF).height(_TALL).legend(_legend())
    return panel.datasource(DataSourceRef(CLICKHOUSE_PLUGIN, "${clickhouse}")).with_target(Sql(sql, "timeseries"))


def _sql_table(title: str, description: str, sql: str, width: int = 2 * _HALF) -> Any:
    """Return a panel with a table, by SQL."""
    panel = table.Panel().title(title).description(description).span(width).height(_TALL).show_header(True)
    return panel.datasource(DataSourceRef(CLICKHOUSE_PLUGIN, "${clickhouse}")).with_target(Sql(sql, "table"))


def _dashboard(name: str, description: str) -> Any:
    return (
        dashboard.Dashboard(f"InfraSage {name}")
        .uid(f"infrasage-{name.lower()}")
        .description(description)
        .tags(["infrasage"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .editable()
    )


def _of_prometheus(name: str, description: str) -> Any:
    job = (
        dashboard.QueryVariable("job")
        .label("Job")
        .datasource(DataSourceRef("prometheus", "${prometheus}"))
        .query("label_values(infrasage_processes, job)")
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )
    source = dashboard.DatasourceVariable("prometheus").label("Prometheus").type("prometheus")
    return _dashboard(name, description).with_variable(source).with_variable(job)


_JOB: Final = 'job=~"$job"'
_ACCEPTED: Final = 'status="accepted"'
_REJECTED: Final = 'status="rejected"'
_LIMITED: Final = 'status=~"limited_by_.*"'
_UNKEPT: Final = 'status=~"refused|failed"'


def _rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the PromQL expression for the growth of a metric a second."""
    matchers = ", ".join(part for part in (_JOB, where) if part)
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def _quantile(metric: str, quantile: float, by: str) -> str:
    """Return the PromQL expression for a quantile of a histogram."""
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', f'{by}, le' if by else 'le')})"


def flow() -> Any:
    """Return the dashboard of received requests and items, their outcomes, and the distance to the limits."""
    made = _of_prometheus("Flow", "What comes in, what becomes of it, how fast it is answered, and how near the limits are.")
    events = "infrasage_ingestion_events_total"
    made.with_panel(_number("Items a second", "Accepted.", "short", Line(_rate(events, "", _ACCEPTED))))
    made.with_panel(
        _number(
            "Rejected",
            "Part of the items that were received.",
            "percentunit",
            Line(f"{_rate(events, '', _REJECTED)} / {_rate(events)}"),
        )
    )
    made.with_panel(
        _number("Parts that do not work", "0: all do.", "short", Line(f"count(infrasage_up{{{_JOB}}} == 0) or vector(0)"))
    )
    made.with_panel(_number("Processes", "Of gateways, or of serve.", "short", Line(f"sum(infrasage_processes{{{_JOB}}})")))
    made.with_panel(
        _graph(
            "Items by type",
            "Accepted items a second.",
            "short",
            Line(_rate(events, "type", _ACCEPTED), "{{type}}"),
            stacked=True,
        )
    )
    made.with_panel(
        _graph(
            "Items by what became of them",
            "accepted + rejected + rate_limited + failed is all that was received.",
            "short",
            Line(_rate(events, "status"), "{{status}}"),
        )
    )
    made.with_panel(
        _by_reason("Rejected items by reason", "docs/use/api.md explains each reason.", "infrasage_validation_failures_total")
    )
    made.with_panel(
        _graph(
            "Duplicates",
            "Requests that were sent again: answered as before by the gateway, or left out by the writer, a message each.",
            "short",
            Line(f"{_rate('infrasage_repeated_requests_total')} or vector(0)", "requests answered as before"),
            Line(f"{_rate('infrasage_writer_repeated_messages_total', 'topic')} > 0", "left out of {{topic}}"),
            stacked=True,
        )
    )
    made.with_panel(_by_reason("Repaired, by kind", "docs/use/api.md explains each kind.", "infrasage_repaired_total"))
    made.with_panel(
        _by_reason("Refused requests by reason", "Requests refused as a whole.", "infrasage_requests_refused_total")
    )
    made.with_panel(
        _graph(
            "Requests by route and code",
            "HTTP and gRPC.",
            "reqps",
            Line(f"{_rate('infrasage_http_requests_total', 'endpoint, code')} > 0", "{{endpoint}} {{code}}"),
            Line(f"{_rate('infrasage_grpc_requests_total', 'method, code')} > 0", "{{method}} {{code}}"),
        )
    )
    made.with_panel(
        _graph(
            "Time to answer, 99th percentile",
            "From a request's head to its answer; the answer waits until its records are durable.",
            "s",
            Line(_quantile("infrasage_http_request_duration_seconds", 0.99, "endpoint"), "{{endpoint}}"),
            Line(_quantile("infrasage_grpc_request_duration_seconds", 0.99, "method"), "{{method}}"),
        )
    )
    made.with_panel(
        _graph(
            "Use of limits",
            "Of what the settings allow. At 1 requests are refused.",
            "percentunit",
            Line(f"max(infrasage_in_flight_bytes{{{_JOB}}} / infrasage_in_flight_limit_bytes{{{_JOB}}})", "bytes in flight"),
            Line(f"max(infrasage_http_connections{{{_JOB}}} / infrasage_http_connections_limit{{{_JOB}}})", "HTTP connections"),
            Line(f"max(infrasage_grpc_connections{{{_JOB}}} / infrasage_grpc_connections_limit{{{_JOB}}})", "gRPC connections"),
            Line(
                f"max(process_open_fds{{{_JOB}}} / (process_max_fds{{{_JOB}}} - infrasage_descriptors_reserve{{{_JOB}}}))",
                "file descriptors",
            ),
        )
    )
    made.with_panel(
        _graph(
            "Memory and CPU",
            "Of all processes of a page together.",
            "short",
            Line(f"sum by (instance) (process_resident_memory_bytes{{{_JOB}}}) / 2 ^ 30", "{{instance}} GiB"),
            Line(f"sum by (instance) (rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval]))", "{{instance}} cores"),
        )
    )
    return made


def delivery() -> Any:
    """Return the dashboard of the path from the broker into the store."""
    made = _of_prometheus(
        "Delivery", "From the broker into the store: what waits, how fast it is written, and whether it adds up."
    )
    made.with_panel(
        _number("Oldest message that waits", "Of any partition.", "s", Line(f"max(infrasage_log_lag_seconds{{{_JOB}}})"))
    )
    made.with_panel(
        _number(
            "Audit difference",
            "Of the last scheduled audit. 0: everything adds up.",
            "short",
            Line(f"max(infrasage_audit_difference{{{_JOB}}})"),
        )
    )
    made.with_panel(
        _number(
            "Audited up to",
            "How long ago the end of the last audit that judged is.",
            "s",
            Line(f"time() - max(infrasage_audit_timestamp_seconds{{{_JOB}}})"),
        )
    )
    made.with_panel(
        _number("Open dead letters", "Neither replayed nor discarded.", "short", Line(f"max(infrasage_dlq_depth{{{_JOB}}})"))
    )
    made.with_panel(
        _graph(
            "Lag in seconds",
            "How long the oldest message that is not stored yet has waited.",
            "s",
            Line(f"max by (topic, partition) (infrasage_log_lag_seconds{{{_JOB}}})", "{{topic}}/{{partition}}"),
        )
    )
    made.with_panel(
        _graph(
            "Lag in messages",
            "Not stored yet.",
            "short",
            Line(f"sum by (topic) (infrasage_log_lag_messages{{{_JOB}}})", "{{topic}}"),
        )
    )
    made.with_panel(
        _graph(
            "Age of the newest stored item",
            "By the items' own times.",
            "s",
            Line(f"min by (signal) (infrasage_store_newest_item_age_seconds{{{_JOB}}})", "{{signal}}"),
        )
    )
    made.with_panel(
        _graph(
            "Time until durable, and until inserted, 99th percentile",
            "append: a request in the broker; produce: a batch in Kafka; insert: one insert.",
            "s",
            Line(_quantile("infrasage_append_duration_seconds", 0.99, ""), "append"),
            Line(_quantile("infrasage_produce_duration_seconds", 0.99, "topic"), "produce {{topic}}"),
            Line(_quantile("infrasage_writer_insert_duration_seconds", 0.99, "topic"), "insert {{topic}}"),
        )
    )
    made.with_panel(
        _graph(
            "Bytes a second",
            "Of messages: to Kafka, and into the store.",
            "Bps",
            Line(_rate("infrasage_produce_bytes_total", "topic"), "to Kafka {{topic}}"),
            Line(_rate("infrasage_writer_bytes_total", "topic"), "stored {{topic}}"),
        )
    )
    made.with_panel(
        _graph(
            "Errors",
            "Appends, batches to Kafka and inserts that failed; all but refused data are tried again.",
            "short",
            Line(f"{_rate('infrasage_append_errors_total', 'kind')} > 0", "append {{kind}}"),
            Line(f"{_rate('infrasage_produce_errors_total', 'topic, kind')} > 0", "produce {{topic}} {{kind}}"),
            Line(f"{_rate('infrasage_writer_errors_total', 'topic, kind')} > 0", "insert {{topic}} {{kind}}"),
            Line(f"{_rate('infrasage_store_refused_total', 'source')} > 0", "refused by the store {{source}}"),
        )
    )
    made.with_panel(
        _graph(
            "Local log and disk",
            "The local log against its limit; free bytes of the data directory's disk against the reserve.",
            "bytes",
            Line(f"max(infrasage_log_bytes{{{_JOB}}})", "log"),
            Line(f"max(infrasage_log_limit_bytes{{{_JOB}}} > 0)", "log, limit"),
            Line(f"min by (directory) (infrasage_disk_free_bytes{{{_JOB}}})", "disk, free"),
            Line(f"max by (directory) (infrasage_disk_reserve_bytes{{{_JOB}}})", "disk, reserve"),
        )
    )
    made.with_panel(
        _graph(
            "Dead letters and audits",
            "Open dead letters, items past a tenant's cap, and audits by result.",
            "short",
            Line(f"max(infrasage_dlq_depth{{{_JOB}}})", "open"),
            Line(f"sum(increase(infrasage_dlq_not_kept_total{{{_JOB}}}[$__rate_interval]))", "not kept"),
            Line(f"sum by (result) (increase(infrasage_audits_total{{{_JOB}}}[1h]))", "audits, {{result}}"),
        )
    )
    return made


def tenants() -> Any:
    """Return the dashboard of tenants: who sends which data, and who exceeds a plan."""
    made = _of_prometheus(
        "Tenants",
        "Who sends what, and who is over the plan. Names need a key of scope admin for the scrape, or tenants.metrics_names.",
    )
    items, requests = "infrasage_tenant_items_total", "infrasage_tenant_requests_total"
    for title, description, unit, line in (
        (
            "Accepted items",
            "A second, the largest 20.",
            "short",
            Line(f"topk(20, {_rate(items, 'tenant', _ACCEPTED)})", "{{tenant}}"),
        ),
        (
            "Bytes",
            "A second, decompressed, of accepted requests, the largest 20.",
            "Bps",
            Line(f"topk(20, {_rate('infrasage_tenant_bytes_total', 'tenant')})", "{{tenant}}"),
        ),
        (
            "Rejected items",
            "A second, the largest 20.",
            "short",
            Line(f"topk(20, {_rate(items, 'tenant', _REJECTED)} > 0)", "{{tenant}}"),
        ),
        (
            "Requests over the plan",
            "A second, by the limit that they met.",
            "reqps",
            Line(f"topk(20, {_rate(requests, 'tenant, status', _LIMITED)} > 0)", "{{tenant}} {{status}}"),
        ),
        (
            "Requests",
            "A second, the largest 20.",
            "reqps",
            Line(f"topk(20, {_rate(requests, 'tenant', _ACCEPTED)})", "{{tenant}}"),
        ),
        (
            "Refused and failed requests",
            "A second: bodies that can't be read, and what the broker did not take.",
            "reqps",
            Line(f"topk(20, {_rate(requests, 'tenant, status', _UNKEPT)} > 0)", "{{tenant}} {{status}}"),
        ),
    ):
        made.with_panel(_graph(title, description, unit, line))
    return made


def store() -> Any:
    """Return the dashboard of the stored data, by SQL."""
    made = _dashboard("Store", "The telemetry itself, by SQL: receipts, logs, traces, metrics, dead letters.")
    made.with_variable(dashboard.DatasourceVariable("clickhouse").label("ClickHouse").type(CLICKHOUSE_PLUGIN))
    made.with_variable(
        dashboard.QueryVariable("tenant")
        .label("Tenant")
        .description("Those of the list, or any name that is typed.")
        .datasource(DataSourceRef(CLICKHOUSE_PLUGIN, "${clickhouse}"))
        .query(TENANTS)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .include_all(True)
        .all_value(ALL_TENANTS)
        .multi(True)
    )
    made.with_variable(dashboard.TextBoxVariable("text").label("Log text").default_value(""))
    # Without its own value, "All" would be the tenants of the list. The second part is a constant, so it costs nothing.
    tenant = f"(TenantId IN (${{tenant:singlequote}}) OR {ALL_TENANTS} IN (${{tenant:singlequote}}))"
    receipts = f"FROM telemetry_batches WHERE $__timeFilter(ReceivedAt) AND {tenant}"
    logs = f"FROM otel_logs WHERE $__timeFilter(Timestamp) AND {tenant}"
    spans = f"FROM otel_traces WHERE $__timeFilter(Timestamp) AND {tenant}"
    made.with_panel(
        _sql_graph(
            "Accepted items by type",
            "From receipts: what was acknowledged, by the time of its arrival.",
            "short",
            "SELECT toStartOfMinute(ReceivedAt) AS time, arrayJoin(Accepted).1 AS type, sum(Accepted[type]) AS items"
            f" {receipts} GROUP BY time, type ORDER BY time",
        )
    )
    made.with_panel(
        _sql_graph(
            "Rejected items by reason",
            "From receipts.",
            "short",
            "SELECT toStartOfMinute(ReceivedAt) AS time, arrayJoin(Rejected).1 AS reason, sum(Rejected[reason]) AS items"
            f" {receipts} GROUP BY time, reason ORDER BY time",
        )
    )
    made.with_panel(
        _sql_graph(
            "Logs by severity",
            "Records a minute.",
            "short",
            "SELECT toStartOfMinute(Timestamp) AS time, if(SeverityText = '', 'none', upper(SeverityText)) AS severity,"
            f" count() AS records {logs} GROUP BY time, severity ORDER BY time",
        )
    )
    made.with_panel(
        _sql_graph(
            "Spans: 95th percentile of duration by service",
            "The ten services with the most spans.",
            "ns",
            "SELECT toStartOfMinute(Timestamp) AS time, ServiceName, quantile(0.95)(Duration) AS p95"
            f" {spans} AND ServiceName IN (SELECT ServiceName {spans} GROUP BY ServiceName ORDER BY count() DESC LIMIT 10)"
            " GROUP BY time, ServiceName ORDER BY time",
        )
    )
    made.with_panel(
        _sql_table(
            "Recent logs",
            "The newest that contain the text.",
            "SELECT Timestamp, TenantId, ServiceName, SeverityText, Body, TraceId"
            f" {logs} AND positionCaseInsensitive(Body, ${{text:sqlstring}}) > 0 ORDER BY Timestamp DESC LIMIT 200",
        )
    )
    made.with_panel(
        _sql_table(
            "Slowest spans",
            "Of the time that is shown.",
            "SELECT Timestamp, TenantId, ServiceName, SpanName, Duration / 1e6 AS milliseconds, StatusCode, TraceId"
            f" {spans} ORDER BY Duration DESC LIMIT 100",
        )
    )
    made.with_panel(
        _sql_table(
            "Metrics by series",
            "Gauges and sums with the most series.",
            "SELECT MetricName, ServiceName, uniq(Attributes) AS series, count() AS points FROM ("  # noqa: S608
            f"SELECT MetricName, ServiceName, Attributes FROM otel_metrics_gauge WHERE $__timeFilter(TimeUnix) AND {tenant}"
            " UNION ALL"
            f" SELECT MetricName, ServiceName, Attributes FROM otel_metrics_sum WHERE $__timeFilter(TimeUnix) AND {tenant}"
            ") GROUP BY MetricName, ServiceName ORDER BY series DESC LIMIT 100",
            _HALF,
        )
    )
    made.with_panel(
        _sql_table(
            "Open dead letters",
            "By reason and tenant.",
            "SELECT Reason, TenantId, sum(ItemCount) AS items, min(KeptAt) AS oldest, max(KeptAt) AS newest"  # noqa: S608
            f" FROM dead_letters WHERE IsOpen AND {tenant} GROUP BY Reason, TenantId ORDER BY items DESC LIMIT 100",
            _HALF,
        )
    )
    made.with_panel(
        _sql_table(
            "Tables",
            "Rows and bytes on disk. A user without rights on system.parts sees none.",
            "SELECT table, sum(rows) AS rows, formatReadableSize(sum(bytes_on_disk)) AS size, count() AS parts,"
            " min(min_date) AS oldest FROM system.parts WHERE active AND database = currentDatabase()"
            " GROUP BY table ORDER BY sum(bytes_on_disk) DESC",
        )
    )
    return made


TENANTS: Final = "SELECT DISTINCT TenantId FROM telemetry_batches ORDER BY TenantId LIMIT 10000"
# The value of "All" in a query. Grafana does not quote a value that a dashboard sets for it. No tenant has this name.
ALL_TENANTS: Final = "''"
DASHBOARDS: Final = {"flow": flow, "delivery": delivery, "tenants": tenants, "store": store}


def made() -> dict[Path, str]:
    """Return the text of each file."""
    texts = {}
    for name, make in DASHBOARDS.items():
        texts[OUT / f"{name}.json"] = JSONEncoder(sort_keys=True, indent=2).encode(make().build()) + "\n"
    return texts


def main() -> int:
    """Write or check the files. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a file would change")
    check = parser.parse_args().check
    stale = [path for path, text in made().items() if not path.exists() or path.read_text() != text]
    if check:
        for path in stale:
            print(f"{path.name} is not what deploy/grafana/generate.py makes: run it")
        return 1 if stale else 0
    OUT.mkdir(exist_ok=True)
    for path, text in made().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
