"""Clients that are not Python's: programs of tests/clients, built once into $PEERS/clients, and what they are to have stored.

A client gets the address, and the key if there is one, by OpenTelemetry's own variables only. The test is what is stored, never
its exit status alone. A built program is named by a hash of its sources, so it is never stale.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
from support.processes.program import Program
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope

SOURCES: Final = Path(__file__).parents[2] / "clients"
# More than a batch of any SDK (512), and fewer than its queues (2,048) and its series a metric (2,000) hold.
AMOUNT: Final = 1_000
BUILD_TIMEOUT_S: Final = 900
RUN_TIMEOUT_S: Final = 90
SUM: Final = "otel_metrics_sum"


class Language(NamedTuple):
    """How the program in one language is built and run, in its directory."""

    tools: tuple[str, ...]
    build: tuple[str, ...]
    run: tuple[str, ...]
    # Those that its SDK has, as OTEL_EXPORTER_OTLP_PROTOCOL names them.
    protocols: tuple[str, ...]


LANGUAGES: Final = {
    "javascript": Language(
        ("node", "npm"),
        ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
        ("node", "send.js"),
        ("grpc", "http/protobuf", "http/json"),
    ),
    "java": Language(
        ("java", "mvn"),
        ("mvn", "-q", "-B", "package", "dependency:copy-dependencies"),
        ("java", "-XX:TieredStopAtLevel=1", "-cp", "target/classes:target/dependency/*", "Send"),
        ("grpc", "http/protobuf"),
    ),
    "go": Language(("go",), ("go", "build", "-trimpath", "-o", "send", "."), ("./send",), ("grpc", "http/protobuf")),
    # A page, which a browser runs.
    "browser": Language(
        ("npm",),
        (
            "sh",
            "-c",
            "npm ci --ignore-scripts --no-audit --no-fund"
            " && node_modules/.bin/esbuild page.js --bundle --format=iife --outfile=page.bundle.js",
        ),
        (),
        (),
    ),
    # Those that read.
    "clickhouse-go": Language(("go",), ("go", "build", "-trimpath", "-o", "ask", "."), ("./ask",), ()),
    "clickhouse-jdbc": Language(
        ("java", "mvn"),
        ("mvn", "-q", "-B", "package", "dependency:copy-dependencies"),
        ("java", "-XX:TieredStopAtLevel=1", "-cp", "target/classes:target/dependency/*", "Ask"),
        (),
    ),
}


@functools.cache
def built(name: str) -> Path:
    """The directory of the built program. Without its tools the test is skipped, saying so, or, under CI, fails."""
    language = LANGUAGES[name]
    missing = [tool for tool in language.tools if shutil.which(tool) is None]
    if missing:
        message = f"no {' and no '.join(missing)} in PATH: the {name} client was not built and this test did not run"
        if os.environ.get("CI") and not os.environ.get("PEERS_OPTIONAL"):
            pytest.fail(message)
        pytest.skip(message)
    source = SOURCES / name
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes() + b"\0")
    clients = Path(os.environ.get("PEERS") or Path.home() / ".cache/infrasage-peers") / "clients"
    clients.mkdir(parents=True, exist_ok=True)
    directory = clients / f"{name}-{digest.hexdigest()[:12]}"
    with (clients / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run in several processes
        if directory.is_dir():
            return directory
        unfinished = clients / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        done = subprocess.run(
            language.build, cwd=unfinished, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{' '.join(language.build)} in {unfinished}:\n{done.stdout}{done.stderr}"
        for stale in clients.glob(f"{name}-*"):
            shutil.rmtree(stale)
        unfinished.rename(directory)
    return directory


def send(name: str, protocol: str, endpoint: str, service: str, **variables: str) -> None:
    """Run the program in this language to its end. `variables`: more of its environment, by their whole names."""
    directory = built(name)
    done = subprocess.run(
        [*LANGUAGES[name].run, str(AMOUNT)],
        cwd=directory,
        env=_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_SERVICE_NAME=service,
            **variables,
        ),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environment(**variables: str) -> Mapping[str, str]:
    """This process's, without what it has for OpenTelemetry, and with these."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | variables


def new_key(program: Program, tenant: str, scope: Scope = Scope.INGEST) -> str:
    """One that is in force, of a tenant that may be new."""
    path = program.data_dir / keys.FILE_NAME
    key = keys.create(path, tenant=tenant, scope=scope, plan="Unlimited", now=datetime.now(UTC)).text
    headers = {"Content-Type": "application/x-protobuf", "X-API-Key": key}
    if scope.sends:
        until(lambda: httpx.post(f"{program.http}/v1/logs", content=b"", headers=headers).is_success)
    else:
        until(lambda: httpx.get(f"{program.http}/api/v1/usage", headers=headers).is_success)
    return key


class Stored(NamedTuple):
    """What is there of a service that sent numbers: of spans, logs and points how many, how many different, the least and the
    greatest.
    """

    spans: tuple[int, int, int, int]
    logs: tuple[int, int, int, int]
    # Logs that are in the span of the same number.
    logs_in_spans: int
    # Only those whose value is their number, cumulative and monotonic.
    points: tuple[int, int, int, int]
    # Count and sum.
    histograms: list[tuple[int, int]]
    # Where it came in, by signal.
    routes: list[str]


def expected(protocol: str, amount: int = AMOUNT) -> Stored:
    """Each number once, whatever the language."""
    each = (amount, amount, 0, amount - 1)
    if protocol == "grpc":
        names = {"logs": "Logs", "metrics": "Metrics", "trace": "Trace"}
        routes = [f"opentelemetry.proto.collector.{name}.v1.{service}Service/Export" for name, service in names.items()]
    else:
        routes = [f"/v1/{signal}" for signal in ("logs", "metrics", "traces")]
    return Stored(each, each, amount, each, [(amount, amount * (amount - 1) // 2)], sorted(routes))


def stored(program: Program, service: str, tenant: str = "anonymous") -> Stored:
    """What the store has of this service and tenant, in one query."""
    where = f"WHERE ServiceName = '{service}' AND TenantId = '{tenant}'"
    number = "toUInt32(SpanAttributes['number']) AS number"
    summary = "(count(), uniqExact(number), min(number), max(number))"
    batches = " UNION ALL ".join(f"SELECT BatchId FROM {table} {where}" for table in ("otel_logs", "otel_traces", SUM))
    (row,) = program.query(
        f"WITH spans AS (SELECT TraceId, SpanId, {number} FROM otel_traces {where}),"
        f" logs AS (SELECT TraceId, SpanId, toUInt32(Body) AS number FROM otel_logs {where}),"
        f" points AS (SELECT toInt64OrDefault(Attributes['number'], -1::Int64) AS number FROM {SUM} {where}"
        " AND MetricName = 'numbered.counter' AND Value = number AND IsMonotonic AND AggregationTemporality = 2)"
        f" SELECT (SELECT {summary} FROM spans) AS spans, (SELECT {summary} FROM logs) AS logs,"
        " (SELECT count() FROM logs JOIN spans USING (TraceId, SpanId, number)) AS logs_in_spans,"
        f" (SELECT {summary} FROM points) AS points,"
        f" (SELECT groupArray((toUInt64(Count), toUInt64(Sum))) FROM otel_metrics_histogram {where}"
        " AND MetricName = 'numbered.histogram') AS histograms,"
        f" (SELECT arraySort(groupUniqArray(Route)) FROM telemetry_batches WHERE BatchId IN ({batches})) AS routes"
    )

    def whole(column: str) -> tuple[int, int, int, int]:
        count, different, least, greatest = map(int, row[column])
        return count, different, least, greatest

    histograms = [(int(count), int(total)) for count, total in row["histograms"]]
    return Stored(
        whole("spans"),
        whole("logs"),
        int(row["logs_in_spans"]),
        whole("points"),
        histograms,
        sorted(row["routes"]),
    )
