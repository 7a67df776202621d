"""The alerts: each fires when it should and not otherwise, by Prometheus' own test of rules, and leads to documentation."""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML
from support.processes.program import require_peer

from collector.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"

HOUR = 60
DAY = 24 * HOUR


class Case(NamedTuple):
    """Series, as promtool writes them: with which the alert fires `at` that minute, and with which it does not. `fires_too`:
    others with which it fires."""

    fires: dict[str, str]
    quiet: dict[str, str]
    at: int = 30
    fires_too: dict[str, str] | None = None


def up(part: str) -> Case:
    """A part that goes down, and one that was away for less than a minute."""
    series = f'infrasage_up{{job="infrasage",instance="a",part="{part}"}}'
    return Case({series: "1x5 0x60"}, {series: "1x29 0 1x30"})


def counter(series: str) -> Case:
    """One that grows, and one that stays at what it was."""
    return Case({series: "0+5x60"}, {series: "7x60"})


def once(series: str) -> Case:
    """One event, and one before anyone watched."""
    return Case({series: "0x20 1x40"}, {series: "1x60"})


def level(use: str, limit: str, high: float, low: float, maximum: float, at: int = 30) -> Case:
    """A use near its limit, and one that is not."""
    return Case({use: f"{high}x60", limit: f"{maximum}x60"}, {use: f"{low}x60", limit: f"{maximum}x60"}, at)


OF = '{job="infrasage",instance="a"}'
OF_LOGS = '{job="infrasage",instance="a",topic="infrasage.logs"}'
LOGS = '{job="infrasage",instance="a",topic="infrasage.logs",partition="0"}'
LOGS_OF_B = '{job="infrasage",instance="b",topic="infrasage.logs",partition="0"}'
EVENTS = 'infrasage_ingestion_events_total{{job="infrasage",type="log",status="{}"}}'
AGE = 'infrasage_store_newest_item_age_seconds{job="infrasage",instance="a",signal="logs"}'
AUDITS = 'infrasage_audits_total{job="infrasage",instance="a",result="failed"}'
WRITTEN = 'infrasage_writer_messages_total{job="infrasage",instance="a",topic="infrasage.logs"}'
FREE, RESERVE = (
    f'infrasage_disk_{what}_bytes{{job="infrasage",instance="a",directory="data_dir"}}' for what in ("free", "reserve")
)

CASES: dict[str, Case] = {
    "InfraSageTargetDown": Case({f"up{OF}": "1x5 0x60"}, {f"up{OF}": "1x60", 'up{job="other",instance="a"}': "0x60"}),
    "InfraSageBrokerDown": up("broker"),
    "InfraSageStoreDown": up("store"),
    "InfraSageKeysFileUnusable": up("keys"),
    "InfraSageRedisDown": up("redis"),
    "InfraSageProcessesRestart": once(f"infrasage_process_restarts_total{OF}"),
    # promtool's clock begins in 1970.
    "InfraSageCertificateExpires": Case(
        {f"infrasage_tls_certificate_expires_seconds{OF}": f"{5 * 86400}x60"},
        {
            f"infrasage_tls_certificate_expires_seconds{OF}": f"{30 * 86400}x60",
            'infrasage_tls_certificate_expires_seconds{job="infrasage",instance="without TLS"}': "0x60",
        },
    ),
    "InfraSageHandshakesFail": Case(
        {f"infrasage_tls_handshakes_failed_total{OF}": "0+120x60"}, {f"infrasage_tls_handshakes_failed_total{OF}": "0+6x60"}, 40
    ),
    "InfraSageLag": Case({f"infrasage_log_lag_seconds{LOGS}": "0+60x60"}, {f"infrasage_log_lag_seconds{LOGS}": "20x60"}),
    "InfraSagePartitionWithoutWriter": Case(
        {f"infrasage_log_lag_messages{LOGS}": "5x9"},
        # It moved to another writer.
        {
            f"infrasage_log_lag_messages{LOGS}": "5x9",
            f"infrasage_log_lag_messages{LOGS_OF_B}": "_x10 5x600",
        },
        # As long as nobody has it.
        8 * HOUR,
    ),
    "InfraSageStoredDataOld": Case(
        {AGE: "0+60x60", WRITTEN: "0+100x60"},
        {AGE: "0+60x60", WRITTEN: "100x60"},  # nobody sends
    ),
    "InfraSageAuditDifference": Case(
        {f"infrasage_audit_difference{OF}": "0x30 3x800"},
        {f"infrasage_audit_difference{OF}": "3x600 0x800"},  # confirmed
        12 * HOUR + 20,
        {f"infrasage_audit_difference{OF}": "0x30 3x700 stale _x100"},  # its process has ended just now
    ),
    "InfraSageAuditOverdue": Case(
        {f"infrasage_audit_timestamp_seconds{OF}": "100x600"},
        {
            f"infrasage_audit_timestamp_seconds{OF}": "0+60x600",
            f"process_start_time_seconds{OF}": "0x600",
            AUDITS: "0x600",
            # A gateway does not audit.
            'process_start_time_seconds{job="infrasage-gateway",instance="b"}': "0x600",
            # The writer that audited has ended; the other one, as old, audits within its interval.
            'infrasage_audit_timestamp_seconds{job="infrasage-writer",instance="a"}': "0+60x270 stale _x100",
            'process_start_time_seconds{job="infrasage-writer",instance="b"}': "0x600",
            'infrasage_audits_total{job="infrasage-writer",instance="b",result="failed"}': "0x600",
        },
        5 * HOUR,
        # None has judged since the start.
        {f"process_start_time_seconds{OF}": "100x600", AUDITS: "0x600"},
    ),
    "InfraSageAppendsFail": counter('infrasage_append_errors_total{job="infrasage",instance="a",kind="unavailable"}'),
    "InfraSageStoreRefuses": once('infrasage_store_refused_total{job="infrasage",instance="a",source="otlp"}'),
    "InfraSageDeadLettersDropped": once(f"infrasage_writer_dropped_total{OF}"),
    "InfraSageLogDamaged": Case(
        {f"infrasage_log_damages{OF}": "1x60", f"infrasage_log_lost_messages{OF}": "0x60"},
        {f"infrasage_log_damages{OF}": "0x60", f"infrasage_log_lost_messages{OF}": "0x60"},
    ),
    "InfraSageStoreDamagedParts": Case(
        {f"infrasage_store_damaged_parts{OF}": "2x60"}, {f"infrasage_store_damaged_parts{OF}": "0x60"}
    ),
    "InfraSageInsertsCompleted": once(f"infrasage_writer_completed_rows_total{OF_LOGS}"),
    "InfraSageRowsMissing": once(f"infrasage_writer_missing_rows_total{OF_LOGS}"),
    "InfraSageRepairs": Case(
        {'infrasage_repaired_total{job="infrasage",instance="a",tenant="",reason="invalid_text"}': "0+90x60"},
        {'infrasage_repaired_total{job="infrasage",instance="a",tenant="",reason="invalid_text"}': "0+30x60"},
        40,
    ),
    "InfraSageRejects": Case(
        {EVENTS.format("rejected"): "0+5x90", EVENTS.format("accepted"): "0+95x90"},
        {EVENTS.format("rejected"): "0+5x90", EVENTS.format("accepted"): "0+9995x90"},
        60,
    ),
    "InfraSageDeadLettersGrow": Case({f"infrasage_dlq_depth{OF}": "0+50x90"}, {f"infrasage_dlq_depth{OF}": "5000x90"}, 70),
    "InfraSageDeadLettersNotKept": once('infrasage_dlq_not_kept_total{job="infrasage",instance="a",reason="invalid_value"}'),
    "InfraSageTenantOverPlan": Case(
        {'infrasage_tenant_requests_total{job="infrasage",tenant="acme",status="limited_by_items"}': "0+5x60"},
        {'infrasage_tenant_requests_total{job="infrasage",tenant="acme",status="accepted"}': "0+5x60"},
    ),
    "InfraSageDefects": Case(
        {'infrasage_http_requests_total{job="infrasage",instance="a",endpoint="/v1/logs",code="500"}': "0x20 1x40"},
        {'infrasage_http_requests_total{job="infrasage",instance="a",endpoint="/v1/logs",code="503"}': "0+1x60"},
        fires_too={'infrasage_grpc_requests_total{job="infrasage",instance="a",method="m",code="INTERNAL"}': "0x20 1x40"},
    ),
    "InfraSageDiskLow": level(FREE, RESERVE, 900, 2000, 1000),
    "InfraSageDiskFills": Case(
        {FREE: f"{200_000}-100x900", RESERVE: "70000x900"}, {FREE: f"{200_000}-1x900", RESERVE: "70000x900"}, 10 * HOUR
    ),
    "InfraSageLogNearlyFull": level(f"infrasage_log_bytes{OF}", f"infrasage_log_limit_bytes{OF}", 900, 100, 1000),
    "InfraSageInFlightNearLimit": level(
        f"infrasage_in_flight_bytes{OF}", f"infrasage_in_flight_limit_bytes{OF}", 450, 350, 1000
    ),
    "InfraSageConnectionsNearLimit": level(
        f"infrasage_grpc_connections{OF}", f"infrasage_grpc_connections_limit{OF}", 3900, 100, 4096
    ),
    "InfraSageDescriptorsNearLimit": Case(
        {
            f"process_open_fds{OF}": "7500x60",
            f"process_max_fds{OF}": "9216x60",
            f"infrasage_descriptors_reserve{OF}": "1024x60",
        },
        {
            f"process_open_fds{OF}": "300x60",
            f"process_max_fds{OF}": "9216x60",
            f"infrasage_descriptors_reserve{OF}": "1024x60",
        },
    ),
    "InfraSageOverloaded": Case(
        {'infrasage_requests_refused_total{job="infrasage",instance="a",reason="overloaded"}': "0+5x60"},
        {'infrasage_requests_refused_total{job="infrasage",instance="a",reason="invalid_json"}': "0+5x60"},
    ),
}


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    read = YAML(typ="safe", pure=True).load(RULES.read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]


def test_each_alert_fires_when_it_should_and_not_otherwise(alerts: list[dict[str, Any]], tmp_path: Path) -> None:
    """`promtool test rules` finds it firing with the series of its case, and not with those that are nearly the same."""
    assert CASES.keys() == {alert["alert"] for alert in alerts}
    promtool = require_peer("promtool", knows=("promql",))
    # A case that expects the opposite must fail: so a run that tests nothing is noticed.
    for inverted in (False, True):
        files = [_test_file(tmp_path, alert, CASES[alert["alert"]], inverted=inverted) for alert in alerts]
        done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, timeout=240, check=False)
        said = done.stdout + done.stderr
        if not inverted:
            assert 0 == done.returncode, said
        else:
            failed = Counter(re.findall(r'alertname=\\?"(\w+)', said))
            cases = {name: 2 + (case.fires_too is not None) for name, case in CASES.items()}
            assert cases == failed, "a case passes whatever is expected of it"


def _test_file(place: Path, alert: dict[str, Any], case: Case, *, inverted: bool) -> Path:
    """One of promtool's, with this rule alone: it evaluates all rules of a file for every minute of every case."""
    yaml = YAML(typ="safe", pure=True)
    rules, file = place / f"{alert['alert']}.rules.yaml", place / f"{alert['alert']}-{inverted}.yaml"
    with rules.open("w") as out:
        yaml.dump({"groups": [{"name": "one", "rules": [alert]}]}, out)
    tests = _tests(alert["alert"], case, inverted=inverted)
    with file.open("w") as out:
        yaml.dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}, out)
    return file


def _tests(name: str, case: Case, *, inverted: bool) -> list[dict[str, Any]]:
    """Two of promtool's. Which labels an alert has is not what is tested: a query for it has none."""
    return [
        {
            "interval": "1m",
            "name": f"{name} {'fires' if fires else 'does not fire'}",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "promql_expr_test": [
                {
                    "expr": f'clamp_max(count(ALERTS{{alertname="{name}",alertstate="firing"}}), 1) or vector(0)',
                    "eval_time": f"{case.at}m",
                    "exp_samples": [{"labels": "{}", "value": int(fires != inverted)}],
                }
            ],
        }
        for fires, given in ((True, case.fires), (False, case.quiet), (True, case.fires_too))
        if given is not None
    ]


def test_what_alerts_watch_for_is_there_from_the_start(alerts: list[dict[str, Any]]) -> None:
    """Every counter whose growth by one event is enough begins with 0: a series that begins with 1 has not grown."""
    metrics = Metrics()
    metrics.http_endpoint("/v1/logs")
    metrics.grpc_method("S/Export")
    shown = {(name, labels) for family in metrics.snapshot() for name, labels in family.samples}
    watched = re.compile(r"increase\((\w+)(?:\{(\w+)=\"(\w+)\"\})?\[\w+\]\)+ > 0")
    # What it watches goes on.
    expressions = [alert["expr"] for alert in alerts if alert["alert"] != "InfraSageStoredDataOld"]
    found = [match for expression in expressions for match in watched.findall(expression)]
    assert len(found) > 7
    for name, label, value in found:
        assert any(name == known and (not label or (label, value) in labels) for known, labels in shown), name


def test_each_alert_leads_to_documentation_that_there_is(alerts: list[dict[str, Any]]) -> None:
    """The file, and the heading; and it says in a sentence what is wrong, and how bad that is. Where the documentation is, the
    external label says (tests/system/test_alerts.py has Prometheus fill it in)."""
    where = '{{ or $externalLabels.infrasage_docs "docs" }}/'
    for alert in alerts:
        assert alert["annotations"]["runbook_url"].startswith(where)
        path, _, anchor = alert["annotations"]["runbook_url"].removeprefix(where).partition("#")
        text = (ROOT / "docs" / path).read_text()
        anchors = {
            re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        assert not anchor or anchor in anchors, alert["alert"]
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
