"""The command top: show in a terminal what a running collector does."""

from pathlib import Path
from typing import Annotated

import typer

from collector.cli.common import endpoint_of, key_of


def top(
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="The address of the collector's HTTP API, or of a writer's pages.")
    ] = "http://127.0.0.1:8080",
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            help="A file with an API key of scope readonly or higher; one of scope admin shows tenants by name.",
            show_default="none",
        ),
    ] = None,
    interval: Annotated[float, typer.Option("--interval", min=1, max=3600, help="Seconds from one reading to the next.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Print one screen as plain text, after one interval, and exit.")] = False,
) -> None:
    """Show in the terminal what a collector does.

    It shows health, rates, lag, rejections and limits of serve, gateway or writer. q or Ctrl-C ends it. If the output is not
    a terminal, it prints one screen and exits.
    """
    endpoint, key = endpoint_of(endpoint, may_have_path=True), key_of(key_file)
    from collector.cli import top_live  # noqa: PLC0415  # the classes of the pages, which other commands do not need

    top_live.run(endpoint, key, interval, is_once=once)
