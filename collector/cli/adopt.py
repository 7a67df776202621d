"""The command `schema adopt`: take over the tables of the OpenTelemetry Collector's ClickHouse exporter."""

from typing import Annotated

import typer

from collector.cli.common import Config, ProductionClickHouse, failures, load_settings, refuse
from collector.tenancy.keys_file import shown, tenant_problem


def adopt(
    source: Annotated[
        str, typer.Option("--from", metavar="DATABASE", help="The database in which the exporter made its tables.")
    ],
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="The tenant that the exporter's rows belong to.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Move the old rows into the collector's tables, day by day. It may be run again.")
    ] = False,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Take over the tables of the OpenTelemetry exporter.

    The tables are renamed, and their old names show old and new rows together. The command may be killed at any point, and
    run again.
    """
    if (problem := tenant_problem(tenant)) is not None:
        refuse(f"--tenant: {shown(tenant)} {problem}")
    settings = load_settings(config, {"clickhouse.url": clickhouse}).settings
    from collector.app import adoption  # noqa: PLC0415  # the engine: a second that others need not wait

    with failures():
        adoption.adopt(settings, source, tenant, copies=copy, print_line=typer.echo)
