"""Clients of many languages against one real `serve`, run by `make test-clients`: they need a network and toolchains."""

from collections.abc import Iterator

import pytest
from support.processes.program import Program, started


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One for a whole module: its tests tell their rows apart by service and tenant. Ends having rejected nothing, kept all."""
    with started(Program(tmp_path_factory.mktemp("clients") / "data", tenants__keys_reload_s=0.1)) as running:
        yield running
        (row,) = running.query(
            "SELECT sum(Received) AS received, sum(arraySum(mapValues(Accepted))) AS accepted FROM telemetry_batches"
        )
        assert row["received"] == row["accepted"], "something that a client sent was rejected"
        tables = [
            *("otel_logs", "otel_traces", "otel_metrics_gauge", "otel_metrics_sum", "otel_metrics_histogram"),
            *("otel_metrics_exponential_histogram", "otel_metrics_summary"),
        ]
        kept = running.value("SELECT " + " + ".join(f"(SELECT count() FROM {table})" for table in tables))
        assert int(row["accepted"]) == int(kept), "what was acknowledged is not what is stored"
