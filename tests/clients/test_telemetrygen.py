"""OpenTelemetry's load generator over HTTP, and with a key. Over gRPC without one it is in tests/system/test_serve.py."""

import subprocess

import pytest
from support.processes.clients import new_key
from support.processes.program import Program, require_peer

pytestmark = pytest.mark.clients

AMOUNT = 500
WORKERS = 2
SIGNALS = [
    ("logs", ("--logs",), "otel_logs"),
    ("traces", ("--traces",), "otel_traces"),
    ("metrics", ("--metric-type", "Gauge", "--metrics"), "otel_metrics_gauge"),
    ("metrics", ("--metric-type", "Sum", "--metrics"), "otel_metrics_sum"),
    ("metrics", ("--metric-type", "Histogram", "--metrics"), "otel_metrics_histogram"),
    ("metrics", ("--metric-type", "ExponentialHistogram", "--metrics"), "otel_metrics_exponential_histogram"),
]


@pytest.mark.parametrize("way", ["http", "http with a key", "grpc with a key"])
@pytest.mark.parametrize(("signal", "arguments", "table"), SIGNALS, ids=[table for _, _, table in SIGNALS])
def test_telemetrygen(program: Program, signal: str, arguments: tuple[str, ...], table: str, way: str) -> None:
    """As many items are stored as it was asked to send, of every signal and kind of metric, for the key's tenant."""
    telemetrygen = require_peer("telemetrygen")
    service = tenant = f"{table}-{way.replace(' ', '-')}"
    address = program.grpc if way.startswith("grpc") else program.otlp_http.removeprefix("http://")
    options = ["--otlp-http"] if way.startswith("http") else []
    if way.endswith("key"):
        options += ["--otlp-header", f'x-api-key="{new_key(program, tenant)}"']
    else:
        tenant = "anonymous"
    done = subprocess.run(
        [
            *(telemetrygen, signal, "--otlp-endpoint", address, "--otlp-insecure", "--rate", "0", "--service", service),
            *("--workers", str(WORKERS), *options, *arguments, str(AMOUNT)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A trace is two spans.
    items = WORKERS * AMOUNT * (2 if signal == "traces" else 1)
    rows = program.query(f"SELECT TenantId, count() AS n FROM {table} WHERE ServiceName = '{service}' GROUP BY TenantId")
    assert [(tenant, items)] == [(row["TenantId"], int(row["n"])) for row in rows]
