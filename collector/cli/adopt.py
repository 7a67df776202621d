"""The command `schema adopt`: tables of the OpenTelemetry Collector's exporter, taken over."""

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
        bool, typer.Option("--copy", help="Move the old rows into the collector's tables, day by day; may be run again.")
    ] = False,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Take over the tables of the OpenTelemetry exporter.

    They are renamed, and their names show old and new rows as one. May be killed at any point and run again.
    """
    if (problem := tenant_problem(tenant)) is not None:
        refuse(f"--tenant: {shown(tenant)} {problem}")
    settings = load_settings(config, {"clickhouse.url": clickhouse}).settings
    from collector.app import adoption  # noqa: PLC0415  # as in serve

    with failures():
        adoption.adopt(settings, source, tenant, copies=copy, say=typer.echo)
