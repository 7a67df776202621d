"""All commands: short ones are functions here, the others are in modules beside this one.

Invariants:
1. A user's mistake is reported in one clear line on standard error, never as a traceback (test_a_server_that_is_away_is_named,
   test_a_wrong_host_is_named).
2. The exit status is 0 if the command was done, 1 if it could not be done, and 2 if its usage was wrong: flags or settings
   (test_what_was_asked_for_wrongly_is_status_2).
3. A command loads only the modules that it runs: a help text does not wait for the servers, the store, or their libraries
   (test_light_commands_load_nothing_heavy).
"""

import contextlib
from typing import Annotated, Final

import typer

from collector.api import query_client
from collector.cli import dlq, keys, log
from collector.cli.adopt import adopt
from collector.cli.audit import audit
from collector.cli.backup import backup, restore
from collector.cli.common import (
    USAGE,
    Config,
    DataDir,
    KeysFile,
    announce,
    failures,
    load_settings,
    print_bytes,
    print_notice,
    print_text,
)
from collector.cli.generate import generate
from collector.cli.grants import grants
from collector.cli.plain_errors import PlainErrors
from collector.cli.tail import tail
from collector.cli.top import top
from collector.config.reference import FLAGS, SETTINGS, value_of
from collector.config.settings import Settings
from collector.config.show import show

_HELP_COLUMNS_MAX: Final = 160

app = typer.Typer(
    name="infrasage-collector",
    cls=PlainErrors,
    help="Receive OTLP, Prometheus remote write and JSON; store every record exactly once; answer SQL.",
    no_args_is_help=True,
    # Click wraps help texts at 80 columns by default, however wide the terminal is.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _HELP_COLUMNS_MAX},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
schema_app = typer.Typer(help="Show or create the tables of the store.", no_args_is_help=True)
config_app = typer.Typer(help="Check or show the settings.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")
schema_app.command("adopt")(adopt)
schema_app.command("grants")(grants)
app.command()(audit)
app.command()(backup)
app.command()(restore)
app.command()(generate)
app.command()(tail)
app.command()(top)
app.add_typer(dlq.app, name="dlq")
app.add_typer(keys.app, name="keys")
app.add_typer(log.app, name="log")
app.add_typer(config_app, name="config")

Host = Annotated[
    str | None, typer.Option("--host", metavar="ADDRESS,…", help="The addresses to listen on.", show_default="127.0.0.1")
]
HttpPort = Annotated[
    str | None,
    typer.Option("--http-port", metavar="PORT", help="The port of the HTTP API; 0: any free port.", show_default="8080"),
]
OtlpHttpPort = Annotated[
    str | None,
    typer.Option("--otlp-http-port", metavar="PORT", help="The port of OTLP over HTTP; 0: any free port.", show_default="4318"),
]
GrpcPort = Annotated[
    str | None,
    typer.Option("--grpc-port", metavar="PORT", help="The port of OTLP over gRPC; 0: any free port.", show_default="4317"),
]

LogRequests = Annotated[
    bool | None, typer.Option("--log-requests", help="Log a line for each request.", show_default="the settings'")
]
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka", metavar="HOST:PORT,…", help="Kafka's brokers; without them a local log is used.", show_default="none"
    ),
]
# A gateway does not run without Kafka, and a writer does not run without Kafka and ClickHouse.
NeededKafka = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT,…", help="Kafka's brokers: needed.", show_default="the settings'")
]
NeededClickHouse = Annotated[
    str | None, typer.Option("--clickhouse", metavar="URL", help="The ClickHouse server: needed.", show_default="the settings'")
]
ClickHouse = Annotated[
    str | None,
    typer.Option(
        "--clickhouse",
        metavar="URL",
        help="The ClickHouse server; without it the embedded engine is used.",
        show_default="none",
    ),
]

ShardsCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="CLUSTER",
        help="A cluster with every shard; tables that read all shards are included.",
        show_default="the settings'",
    ),
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
    """Read the options that precede the command."""


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
    log_requests: LogRequests = None,
    config: Config = None,
) -> None:
    """Run the whole collector in one process.

    The command runs until SIGTERM or SIGINT. The log and the store are embedded, unless Kafka or ClickHouse is given.
    """
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
            "logging.requests": log_requests,
        },
    )
    from collector.app import roles  # noqa: PLC0415  # the engine and the servers: a second that others need not wait

    with failures():
        status = roles.serve(loaded.settings, announce)
    raise typer.Exit(status)


@app.command()
def gateway(
    kafka: NeededKafka = None,
    clickhouse: Annotated[
        str | None,
        typer.Option(
            "--clickhouse",
            metavar="URL",
            help="The server that writers store into; pages that show stored data need it.",
            show_default="none",
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis", metavar="URL", help="Redis that gateways share to enforce plans together.", show_default="none"
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="NUMBER", help="The number of processes; they share the ports.", show_default="1"),
    ] = None,
    host: Host = None,
    http_port: HttpPort = None,
    otlp_http_port: OtlpHttpPort = None,
    grpc_port: GrpcPort = None,
    keys_file: KeysFile = None,
    log_requests: LogRequests = None,
    config: Config = None,
) -> None:
    """Run the receivers, which send records to Kafka.

    The command runs until SIGTERM or SIGINT. Writers store the records.
    """
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
            "logging.requests": log_requests,
        },
    ).settings
    _require("gateway", settings, "kafka.bootstrap")
    with failures():
        if settings.gateway.workers > 1:
            from collector.app import supervisor as several  # noqa: PLC0415  # not the receivers: this process only watches

            status = several.run_gateway(settings, announce)
        else:
            from collector.app import roles  # noqa: PLC0415  # as in serve

            status = roles.gateway(settings, announce)
    raise typer.Exit(status)


@app.command()
def writer(
    kafka: NeededKafka = None,
    clickhouse: NeededClickHouse = None,
    host: Host = None,
    port: Annotated[
        str | None,
        typer.Option(
            "--port", metavar="PORT", help="The port of /healthz and /metrics; 0: any free port.", show_default="8081"
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="NAME=ENCODING[:SIGNAL[:TENANT]]",
            help="A topic that others write, as OpenTelemetry's Collector does: otlp_proto or otlp_json. May be repeated.",
            show_default="none",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Run a writer, from Kafka into ClickHouse.

    The command runs until SIGTERM or SIGINT. It stores every record exactly once.
    """
    settings = load_settings(
        config,
        {
            "kafka.bootstrap": kafka,
            "clickhouse.url": clickhouse,
            "host": host,
            "writer.port": port,
            "kafka.topics": ",".join(topic) if topic else None,
        },
    ).settings
    _require("writer", settings, "kafka.bootstrap", "clickhouse.url")
    from collector.app import supervisor  # noqa: PLC0415  # not the store: this process only watches

    with failures():
        status = supervisor.run_writer(settings, announce)
    raise typer.Exit(status)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A statement in ClickHouse's SQL that only reads.")],
    data_dir: DataDir = None,
    clickhouse: ClickHouse = None,
    format_: Annotated[
        str, typer.Option("--format", help="An output format of ClickHouse: CSVWithNames, JSONEachRow, …")
    ] = query_client.TABLE_FORMAT,
    config: Config = None,
) -> None:
    """Run a SQL statement and print its result.

    The running collector answers. If none runs, the data directory is read. With --clickhouse, the server answers.
    """
    settings = load_settings(config, {"data_dir": data_dir, "clickhouse.url": clickhouse}).settings
    with failures():
        answer = _answer(settings, sql, format_)
    if answer.messages_behind:
        print_notice(f"warning: {answer.messages_behind} acknowledged messages are not stored yet, so not in this answer")
    if not answer.body.strip():
        print_notice("no rows")
    print_bytes(answer.body)


def _answer(settings: Settings, sql: str, format_: str) -> query_client.QueryAnswer:
    """Return the answer of the server, of the running collector, or of the data directory itself. Raises CannotRun."""
    if not settings.clickhouse.url:
        with contextlib.suppress(query_client.NotRunning):
            return query_client.ask(settings.data_dir, sql, format_)
    from collector.app import offline_queries  # noqa: PLC0415  # as in serve

    return (offline_queries.query_server if settings.clickhouse.url else offline_queries.query_offline)(settings, sql, format_)


@schema_app.command("show")
def schema_show(config: Config = None) -> None:
    """Print the statements that create the tables.

    The statements are in the order of their versions, and for a cluster if the settings name one.
    """
    settings = load_settings(config, {}).settings
    from collector.app import schema  # noqa: PLC0415  # as in serve

    print_text(schema.text(settings))


@schema_app.command("apply")
def schema_apply(
    data_dir: DataDir = None, clickhouse: ClickHouse = None, cluster: ShardsCluster = None, config: Config = None
) -> None:
    """Create the tables, or bring them up to date.

    `serve` and `writer` do this when they start, except for the tables that read every shard.
    """
    flags: dict[str, object] = {"data_dir": data_dir, "clickhouse.url": clickhouse, "clickhouse.shards_cluster": cluster}
    settings = load_settings(config, flags).settings
    from collector.app import schema  # noqa: PLC0415  # as in serve

    with failures():
        print_text(schema.apply(settings))


@schema_app.command("plan")
def schema_plan(
    data_dir: DataDir = None, clickhouse: ClickHouse = None, cluster: ShardsCluster = None, config: Config = None
) -> None:
    """Print the changes that schema apply would make, and their cost."""
    flags: dict[str, object] = {"data_dir": data_dir, "clickhouse.url": clickhouse, "clickhouse.shards_cluster": cluster}
    settings = load_settings(config, flags).settings
    from collector.app import schema  # noqa: PLC0415  # as in serve

    with failures():
        print_text(schema.plan(settings))


@config_app.command("check")
def config_check(config: Config = None) -> None:
    """Check the settings, and print every mistake."""
    loaded = load_settings(config, {})
    changed = len(loaded.origins)
    print_text(f"ok: {changed} {'setting is' if changed == 1 else 'settings are'} given, the others are at their defaults")


@config_app.command("show")
def config_show(data_dir: DataDir = None, config: Config = None) -> None:
    """Print all settings in force, and where they come from."""
    print_text(show(load_settings(config, {"data_dir": data_dir})), ends_line=False)


@app.command()
def version() -> None:
    """Print the version, and whether the hot path is compiled."""
    _print_version()


def _print_version() -> None:
    from collector.runtime.version import VERSION, is_compiled  # noqa: PLC0415  # loads the hot path to see whether it is compiled

    print_text(f"infrasage-collector {VERSION} ({'compiled' if is_compiled() else 'not compiled'})")


def _require(command: str, settings: Settings, *keys: str) -> None:
    """Exit with status 2 if one of these settings is not given."""
    missing = [SETTINGS[key] for key in keys if not value_of(settings, SETTINGS[key])]
    for setting in missing:
        print_notice(
            f"error: {command} needs {setting.key}: {FLAGS[setting.key]}, {setting.variable} or a file with --config gives it"
        )
    if missing:
        raise typer.Exit(USAGE)


def main() -> None:
    """Run the command that was typed."""
    app(prog_name=app.info.name)
