"""Gateways and writers around Kafka and a ClickHouse server: the production form, as processes."""

from pathlib import Path
from typing import Protocol

import httpx
from support.processes.clickhouse_server import Server
from support.processes.program import Gateway, WriterCommand
from support.senders import otlp_logs
from support.waiting import TIMEOUT_S

# Small ranges, no waiting, and a dead writer's partitions soon given to others: the more often something is under way, the more
# is tried.
WRITING = {"writer__linger_ms": 5, "writer__bytes_max": 60_000, "writer__retry_max_s": 0.5, "kafka__session_timeout_s": 2}


class Bootstrapped(Protocol):
    """support.processes.kafka.Kafka, or support.processes.kafka_cluster.KafkaCluster."""

    @property
    def bootstrap(self) -> str: ...


def gateway(kafka: Bootstrapped, place: Path, workers: int = 2, **settings: object) -> Gateway:
    fixed = {"kafka__bootstrap": kafka.bootstrap, "gateway__workers": workers, "tenants__anonymous": "yes"}
    return Gateway(place / "gateway", **(fixed | settings))


def writer(kafka: Bootstrapped, clickhouse: Server, place: Path, **settings: object) -> WriterCommand:
    fixed = {"kafka__bootstrap": kafka.bootstrap, **clickhouse_settings(clickhouse), **WRITING}
    return WriterCommand(place, **(fixed | settings))


def clickhouse_settings(clickhouse: Server) -> dict[str, object]:
    return {
        "clickhouse__url": clickhouse.url,
        "clickhouse__user": clickhouse.user,
        "clickhouse__password": clickhouse.password,
        "clickhouse__database": clickhouse.database,
        "store__fsync": "false",
    }


def ask_server(clickhouse: Server, sql: str) -> list[tuple[int, ...]]:
    """Rows of numbers, from the server itself."""
    answer = httpx.post(
        clickhouse.url,
        params={"database": clickhouse.database, "default_format": "TSV"},
        auth=(clickhouse.user, clickhouse.password),
        content=sql,
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 200, answer.text
    return [tuple(int(cell) for cell in line.split("\t")) for line in answer.text.splitlines()]


def is_well(http: str) -> bool:
    return bool(httpx.get(f"{http}/healthz").json()["status"] == "ok")


def lag_lines(http: str) -> int:
    return sum(line.startswith("infrasage_log_lag_messages{") for line in httpx.get(f"{http}/metrics").text.splitlines())


def send_one(http: str, body: str = "x") -> httpx.Response:
    """Send one log record by OTLP."""
    headers = {"Content-Type": "application/x-protobuf"}
    return httpx.post(f"{http}/v1/logs", content=otlp_logs([body]), headers=headers, timeout=20)
