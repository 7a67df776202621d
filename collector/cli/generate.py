"""The command generate: send a load, count the acknowledged items, and check them against the store."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from collector.cli.common import (
    FAILED,
    Config,
    DataDir,
    ProductionClickHouse,
    endpoint_of,
    failures,
    key_of,
    load_settings,
    print_text,
    refuse,
)
from collector.config.settings import Settings

_SHAPE: Final = re.compile(r"([1-9]\d{0,5})x(\d{1,3})")


class Signal(StrEnum):
    """The signals that can be sent."""

    LOGS = "logs"
    METRICS = "metrics"
    TRACES = "traces"


def generate(
    signal: Annotated[Signal, typer.Option("--signal", help="The signal to send.")] = Signal.LOGS,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=10_000_000, help="Items per second.")] = 1000,
    shape: Annotated[
        str, typer.Option("--shape", metavar="ITEMSxATTRIBUTES", help="Items per request, and attributes per item.")
    ] = "100x8",
    duration: Annotated[float, typer.Option("--duration", min=0.1, max=86_400, help="For how many seconds to send.")] = 10,
    endpoint: Annotated[str, typer.Option("--endpoint", help="The address of OTLP over HTTP.")] = "http://127.0.0.1:4318",
    connections: Annotated[int, typer.Option("--connections", min=1, max=256, help="The number of connections.")] = 4,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="A file with the API key to send.", show_default="none")
    ] = None,
    data_dir: DataDir = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Send a load, and check that it is stored.

    Items are numbered. Ctrl-C ends the sending. The exit status is 0 if every acknowledged item is stored, and none twice.
    """
    shaped = _SHAPE.fullmatch(shape)
    if shaped is None:
        refuse(f"--shape: {shape} must be ITEMSxATTRIBUTES, as 100x8: 1 to 999999 items, 0 to 999 attributes")
    endpoint, key = endpoint_of(endpoint, may_have_path=False), key_of(key_file)
    settings = load_settings(config, {"data_dir": data_dir, "clickhouse.url": clickhouse}).settings
    from collector.app import generate as app  # noqa: PLC0415  # the protobuf classes, which other commands do not need

    items, attributes = int(shaped[1]), int(shaped[2])
    plan = app.LoadPlan(signal.value, rate, items, attributes, duration, connections, endpoint, key)
    with failures():
        _query(settings, "SELECT 1")  # a store that can't be asked is reported before the load is sent
        sent = app.send(plan)
        stored = app.find(plan, sent, lambda sql: _query(settings, sql))
    refused = ", ".join(f"{count} with {status or 'no connection'}" for status, count in sorted(sent.refused.items()))
    print_text(
        f"service {sent.service}: acknowledged {sent.acknowledged:,} {signal.value}, rejected {sent.rejected:,},"
        f" in doubt {sent.in_doubt:,}; requests refused: {refused or 'none'}; the latest began {sent.late_s:.2f} s late"
    )
    print_text(f"stored {stored.items:,}, of which {stored.items - stored.distinct:,} more than once")
    if not stored.adds_up(sent):
        raise typer.Exit(FAILED)


def _query(settings: Settings, sql: str) -> bytes:
    """Return the answer of the store to a query, as lines of JSON. Raises CannotRun."""
    if settings.clickhouse.url:
        from collector.app import offline_queries  # noqa: PLC0415  # the engine: a second that others need not wait

        return offline_queries.query_server(settings, sql, "JSONEachRow").body
    from collector.api import query_client  # noqa: PLC0415  # as above
    from collector.runtime.errors import CannotRun  # noqa: PLC0415

    try:
        return query_client.ask(settings.data_dir, sql, "JSONEachRow").body
    except query_client.NotRunning:
        raise CannotRun(
            f"no collector runs on {settings.data_dir}: choose another directory with --data-dir, or a server with --clickhouse"
        ) from None
