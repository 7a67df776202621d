"""ClickHouse's protocol with the drivers of other languages: clickhouse-go, as Grafana's plugin uses it, and JDBC.

Each asks for values of many types, whose answers are known, and every statement of Grafana's dashboards, with a tenant's key.
"""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from support.processes.clients import LANGUAGES, RUN_TIMEOUT_S, built, new_key
from support.processes.program import Program, started

from collector.tenancy.scopes import Scope

pytestmark = pytest.mark.clients

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "store.json"
KNOWN = {
    "SELECT 1, 'text', toFloat64(1.5), toUInt64(18446744073709551615), CAST(NULL, 'Nullable(String)') IS NULL": [
        "1",
        "text",
        "1.5",
        "18446744073709551615",
        "1",
    ],
    "SELECT toLowCardinality('low'), toInt128(-1), toDecimal32(1.25, 2)": ["low", "-1", "1.25"],
    "SELECT groupUniqArray(TenantId)[1], uniq(TenantId) FROM otel_logs": ["acme", "1"],
    "SELECT count(), sum(number) FROM (SELECT number FROM numbers(200000))": ["200000", "19999900000"],
}
MANY = "SELECT number, repeat('x', number % 100) FROM numbers(150000)"


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:  # type: ignore[misc]  # a generator
    """The environment of a client of tenant acme, beside whom another sends."""
    place = tmp_path_factory.mktemp("clickhouse") / "data"
    with started(Program(place, tenants__keys_reload_s=0.1, store__http_port=0)) as program:
        for tenant in ("acme", "globex"):
            record = {"service_id": tenant, "type": "log", "body": f"of {tenant}", "timestamp": datetime.now(UTC).isoformat()}
            headers = {"X-API-Key": new_key(program, tenant)}
            assert httpx.post(f"{program.http}/api/v1/telemetry", json=record, headers=headers).is_success
        found = re.search(r"ClickHouse HTTP http://(127\.0\.0\.1:\d+)", program.printed)
        assert found is not None
        yield {"CLICKHOUSE_ADDRESS": found[1], "CLICKHOUSE_PASSWORD": new_key(program, "acme", Scope.READONLY)}


def of_dashboards() -> list[str]:
    """Every statement of the dashboard Store, filled in as Grafana's plugin does."""
    statements = [target["rawSql"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    return [
        re.sub(
            r"\$__timeFilter\((\w+)\)",
            r"\1 >= toDateTime64(now() - 3600, 3) AND \1 <= toDateTime64(now() + 60, 3)",
            sql.replace("${tenant:singlequote}", "'acme','globex'").replace("${text:sqlstring}", "''"),
        )
        for sql in statements
    ]


def asked(name: str, compression: str, environment: dict[str, str], given: str) -> str:
    """What the client prints."""
    done = subprocess.run(
        [*LANGUAGES[name].run, compression],
        cwd=built(name),
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), **environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "globex" not in done.stdout, "a tenant's key has read another tenant's rows"
    return done.stdout


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
def test_clickhouse_go(clickhouse: dict[str, str], compression: str) -> None:
    """The driver of Grafana's plugin; its own frames, whose checksums it verifies, for lz4 and zstd."""
    statements = [*KNOWN, MANY, *of_dashboards()]
    answers = json.loads(asked("clickhouse-go", compression, clickhouse, json.dumps(statements)))
    assert len(statements) == len(answers)
    known = [rows[0] for rows in answers[: len(KNOWN)]]
    assert list(KNOWN.values()) == [[{"true": "1"}.get(value, value) for value in row] for row in known]
    many = answers[len(KNOWN)]
    assert [[str(number), "x" * (number % 100)] for number in range(150_000)] == many
    assert any("of acme" in value for rows in answers[len(KNOWN) + 1 :] for row in rows for value in row)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_jdbc(clickhouse: dict[str, str], compression: str) -> None:
    """It reads with and without the driver's compression, which is ClickHouse's own, and lists the tables."""
    statements = [*KNOWN, MANY, *of_dashboards()]
    *answers, tables = asked("clickhouse-jdbc", compression, clickhouse, "\n".join(statements) + "\n").split("\n\n")
    rows = [[line.split("\t") for line in answer.splitlines()] for answer in answers]
    assert list(KNOWN.values()) == [answer[0] for answer in rows[: len(KNOWN)]]
    assert 150_000 == len(rows[len(KNOWN)])
    assert "of acme" in "\n".join(answers[len(KNOWN) + 1 :])
    assert {"otel_logs", "otel_traces", "otel_metrics_gauge"} <= set(tables.split())
