"""The commands: serve, gateway, writer, query, audit, backup, restore, generate, dlq, log, schema, keys, config, version.

Invariants:
1. A user's mistake is one clear line on standard error, never a traceback (test_a_server_that_is_away_is_named,
   test_a_wrong_host_is_named).
2. The exit status says what happened: 0 done, 1 could not be done, 2 wrong usage (flags, settings)
   (test_what_was_asked_for_wrongly_is_status_2).
"""

import contextlib
import os
import sys
from typing import Annotated

import typer

from collector.api import query_socket
from collector.cli import dlq, keys, log
from collector.cli.audit import audit
from collector.cli.backup import backup, restore
from collector.cli.common import (
    USAGE,
    Config,
    DataDir,
    KeysFile,
    failures,
    load_settings,
    say,
)
from collector.cli.generate import generate
from collector.config.reference import FLAGS, SETTINGS, value_of
from collector.config.settings import Settings
from collector.config.show import show

app = typer.Typer(
    name="infrasage-collector",
    help="Takes OTLP, Prometheus remote write and JSON telemetry; stores it exactly once; answers SQL.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
schema_app = typer.Typer(help="The store's tables.", no_args_is_help=True)
config_app = typer.Typer(help="The settings: defaults, a file, the environment, flags.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")
app.command()(audit)
app.command()(backup)
app.command()(restore)
app.command()(generate)
app.add_typer(dlq.app, name="dlq")
app.add_typer(keys.app, name="keys")
app.add_typer(log.app, name="log")
app.add_typer(config_app, name="config")

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1")]
HttpPort = Annotated[int | None, typer.Option("--http-port", help="Port of the HTTP API; 0: any free.", show_default="8080")]
OtlpHttpPort = Annotated[
    int | None, typer.Option("--otlp-http-port", help="Port of OTLP over HTTP; 0: any free.", show_default="4318")
]
GrpcPort = Annotated[int | None, typer.Option("--grpc-port", help="Port of OTLP over gRPC; 0: any free.", show_default="4317")]


Kafka = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT,…", help="Kafka in the local log's place.", show_default="none")
]
ClickHouse = Annotated[
    str | None,
    typer.Option("--clickhouse", metavar="URL", help="ClickHouse in the embedded engine's place.", show_default="none"),
]


def _version_option(is_given: bool) -> None:
    if is_given:
        _print_version()
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version_option, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Read the options that come before any command."""


@app.command()
def serve(
    kafka: Kafka = None,
    clickhouse: ClickHouse = None,
    data_dir: DataDir = None,
    host: Host = None,
    http_port: HttpPort = None,
    otlp_http_port: OtlpHttpPort = None,
    grpc_port: GrpcPort = None,
    keys_file: KeysFile = None,
    config: Config = None,
) -> None:
    """Run the collector, all in one process, until SIGTERM or SIGINT. What isn't given is embedded."""
    loaded = load_settings(
        config,
        {
            "kafka.bootstrap": kafka,
            "clickhouse.url": clickhouse,
            "data_dir": data_dir,
            "host": host,
            "http.port": http_port,
            "http.otlp_port": otlp_http_port,
            "grpc.port": grpc_port,
            "tenants.keys_file": keys_file,
        },
    )
    from collector.app import roles  # noqa: PLC0415  # the engine and the servers: a second that others need not wait

    with failures():
        status = roles.serve(loaded.settings, _announce)
    raise typer.Exit(status)


@app.command()
def gateway(
    kafka: Kafka = None,
    clickhouse: Annotated[
        str | None,
        typer.Option(
            "--clickhouse", metavar="URL", help="Which one writers write to: for pages that tell of it.", show_default="none"
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option("--redis", metavar="URL", help="By which gateways count together what tenants send.", show_default="none"),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes that share the ports.", show_default="1")] = None,
    host: Host = None,
    http_port: HttpPort = None,
    otlp_http_port: OtlpHttpPort = None,
    grpc_port: GrpcPort = None,
    keys_file: KeysFile = None,
    config: Config = None,
) -> None:
    """Run the receivers: what comes in goes to Kafka, for writers to store. Until SIGTERM or SIGINT."""
    settings = load_settings(
        config,
        {
            "kafka.bootstrap": kafka,
            "clickhouse.url": clickhouse,
            "limits.redis_url": redis,
            "gateway.workers": workers,
            "host": host,
            "http.port": http_port,
            "http.otlp_port": otlp_http_port,
            "grpc.port": grpc_port,
            "tenants.keys_file": keys_file,
        },
    ).settings
    _require("gateway", settings, "kafka.bootstrap")
    with failures():
        if settings.gateway.workers > 1:
            from collector.app import supervisor as several  # noqa: PLC0415  # not the receivers: this process only watches

            status = several.run_gateway(settings, _announce)
        else:
            from collector.app import roles  # noqa: PLC0415  # as in serve

            status = roles.gateway(settings, _announce)
    raise typer.Exit(status)


@app.command()
def writer(
    kafka: Kafka = None,
    clickhouse: ClickHouse = None,
    host: Host = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port of /healthz and /metrics; 0: any free.", show_default="8081")
    ] = None,
    config: Config = None,
) -> None:
    """Run a writer: from Kafka into ClickHouse, exactly once. Until SIGTERM or SIGINT."""
    settings = load_settings(
        config, {"kafka.bootstrap": kafka, "clickhouse.url": clickhouse, "host": host, "writer.port": port}
    ).settings
    _require("writer", settings, "kafka.bootstrap", "clickhouse.url")
    from collector.app import supervisor  # noqa: PLC0415  # not the store: this process only watches

    with failures():
        status = supervisor.run_writer(settings, _announce)
    raise typer.Exit(status)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A reading statement, in ClickHouse's SQL.")],
    data_dir: DataDir = None,
    clickhouse: ClickHouse = None,
    format_: Annotated[
        str, typer.Option("--format", help="Any of ClickHouse's output formats: CSVWithNames, JSONEachRow, …")
    ] = query_socket.TABLE_FORMAT,
    config: Config = None,
) -> None:
    """Ask the running collector, or, where none runs, the data it left; or the ClickHouse server, if there is one."""
    settings = load_settings(config, {"data_dir": data_dir, "clickhouse.url": clickhouse}).settings
    with failures():
        answer = _answer(settings, sql, format_)
    if answer.messages_behind:
        say(f"warning: {answer.messages_behind} acknowledged messages are not stored yet, so not in this answer")
    try:
        sys.stdout.buffer.write(answer.body)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answer(settings: Settings, sql: str, format_: str) -> query_socket.Answer:
    """Raises CannotRun."""
    if not settings.clickhouse.url:
        with contextlib.suppress(query_socket.NotRunning):
            return query_socket.ask(settings.data_dir, sql, format_)
    from collector.app import offline_queries  # noqa: PLC0415  # as in serve

    return (offline_queries.query_server if settings.clickhouse.url else offline_queries.query_offline)(settings, sql, format_)


@schema_app.command("show")
def schema_show(config: Config = None) -> None:
    """Print the statements that make the tables, in the order of their versions; for a cluster, if one is set."""
    settings = load_settings(config, {}).settings
    from collector.app import schema  # noqa: PLC0415  # as in serve

    typer.echo(schema.text(settings))


@schema_app.command("apply")
def schema_apply(data_dir: DataDir = None, clickhouse: ClickHouse = None, config: Config = None) -> None:
    """Make the tables, or bring them up to date. serve and writer do so by themselves at start."""
    settings = load_settings(config, {"data_dir": data_dir, "clickhouse.url": clickhouse}).settings
    from collector.app import schema  # noqa: PLC0415  # as in serve

    with failures():
        typer.echo(schema.apply(settings))


@config_app.command("check")
def config_check(config: Config = None) -> None:
    """Say whether the file and the environment are usable, and if not, every reason."""
    loaded = load_settings(config, {})
    changed = len(loaded.origins)
    typer.echo(f"ok: {changed} {'setting is' if changed == 1 else 'settings are'} given, the others are at their defaults")


@config_app.command("show")
def config_show(config: Config = None) -> None:
    """Print every setting in force, as TOML, and where each that is given came from."""
    typer.echo(show(load_settings(config, {})), nl=False)


@app.command()
def version() -> None:
    """Print the version, and whether the hot path is compiled."""
    _print_version()


def _print_version() -> None:
    from collector.runtime.version import VERSION, is_compiled  # noqa: PLC0415  # loads the hot path to see whether it is compiled

    typer.echo(f"infrasage-collector {VERSION} ({'compiled' if is_compiled() else 'not compiled'})")


def _announce(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads standard output: no reason not to serve
        typer.echo(text)


def _require(command: str, settings: Settings, *keys: str) -> None:
    """Without these settings the command is of no use."""
    missing = [SETTINGS[key] for key in keys if not value_of(settings, SETTINGS[key])]
    for setting in missing:
        say(f"error: {command} needs {setting.key}: {FLAGS[setting.key]}, {setting.variable} or a file with --config gives it")
    if missing:
        raise typer.Exit(USAGE)


def main() -> None:
    """The entry point."""
    app(prog_name=app.info.name)
