"""The command dlq: list, show, replay and discard dead letters.

Every entry for which nothing was done is reported. The exit status of a replay is 1 if an entry was rejected again. An entry
that was replayed or discarded before is reported as `unchanged`, and does not change the exit status.
"""

import base64
import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from collector.api.query_client import NotRunning, ask_dead_letters
from collector.cli.common import (
    FAILED,
    Config,
    DataDir,
    ProductionClickHouse,
    ProductionKafka,
    fail,
    failures,
    load_settings,
    print_notice,
    print_text,
    printable,
    refuse,
    table,
)
from collector.config.settings import Settings
from collector.dead_letters.filters import ENTRIES_MAX, PAGE_DEFAULT, PAGE_MAX, Filter

app = typer.Typer(help="List, show, replay and discard dead letters.", no_args_is_help=True)

_MESSAGE_CHARACTERS_MAX: Final = 60

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids that `dlq list` shows.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only entries with this reason.")]
Service = Annotated[str | None, typer.Option("--service", help="Only entries of this service.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only entries of this tenant.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only entries kept at or after this time (RFC 3339).")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only entries kept before this time (RFC 3339).")]
State = Annotated[
    str | None, typer.Option("--state", help="Only entries in this state: open, rejected_again, replayed or discarded.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Note = Annotated[
    str, typer.Option("--note", help="The reason for this action; it is kept with the entry.", show_default="none")
]
AtMost = Annotated[
    int, typer.Option("--limit", min=1, max=ENTRIES_MAX, help="Act on at most so many of the entries that match.")
]


@app.command("list")
def list_(
    reason: Reason = None,
    service: Service = None,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    state: State = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=PAGE_MAX, help="List at most so many entries.")] = PAGE_DEFAULT,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Continue after an earlier list: the cursor that it printed.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    kafka: ProductionKafka = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """List dead letters, the newest first."""
    filter_ = _filter(reason, service, tenant, since, until, state)
    settings = _settings(data_dir, kafka, clickhouse, config)
    answer = _ask(settings, {"do": "list", "filter": filter_, "limit": limit, "cursor": cursor})
    if answer["messages_behind"]:
        print_notice(f"warning: {answer['messages_behind']} acknowledged messages are not stored yet, so not in this answer")
    if as_json:
        print_text(json.dumps({"entries": answer["entries"], "next_cursor": answer["next_cursor"]}, indent=2))
        return
    rows: list[tuple[str, ...]] = [("ID", "KEPT", "TENANT", "SOURCE", "SERVICE", "REASON", "STATE", "MESSAGE")]
    for entry in answer["entries"]:
        message = entry["message"]
        short = message if len(message) <= _MESSAGE_CHARACTERS_MAX else message[: _MESSAGE_CHARACTERS_MAX - 1] + "…"
        named = (entry[name] for name in ("id", "kept", "tenant", "source", "service_id", "reason", "state"))
        rows.append((*map(printable, named), printable(short)))
    print_text(table(rows))
    if answer["next_cursor"] is not None:
        print_notice(f"there are more: --cursor {answer['next_cursor']}")


@app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids that `dlq list` shows.")],
    payload: Annotated[
        bool, typer.Option("--payload", help="Print only the payload, in the form that `dlq replay` takes.")
    ] = False,
    data_dir: DataDir = None,
    kafka: ProductionKafka = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Print dead letters with their payloads, as JSON."""
    if payload and len(ids) != 1:
        refuse("--payload prints the payload of one dead letter: give one id")
    answer = _ask(_settings(data_dir, kafka, clickhouse, config), {"do": "show", "ids": ids})
    for entry in answer["entries"]:
        if not payload:
            print_text(json.dumps(entry, indent=2))
        elif entry["payload"] is None or (entry["payload_encoding"] == "base64" and entry["decoded"] is None):
            fail("the payload of this dead letter can't be read; without --payload its bytes are shown")
        elif entry["payload_encoding"] == "text":
            print_text(entry["payload"])
        else:
            print_text(json.dumps(entry["payload"] if entry["decoded"] is None else entry["decoded"], indent=2))


@app.command()
def replay(
    ids: Ids = None,
    reason: Reason = None,
    service: Service = None,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    state: State = None,
    limit: AtMost = ENTRIES_MAX,
    as_of: Annotated[
        Literal["now", "received"],
        typer.Option("--as-of", help="Apply the rules about time as of now, or as of when the item was received."),
    ] = "now",
    payload: Annotated[
        Path | None,
        typer.Option("--payload", help="An edited payload, in the form of `dlq show --payload`; -: standard input."),
    ] = None,
    note: Note = "",
    as_json: AsJson = False,
    data_dir: DataDir = None,
    kafka: ProductionKafka = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Send dead letters again, by id or by filter.

    A filter without --state selects only open entries. Each entry is stored once, however often it is replayed.
    """
    request = _request("replay", ids, _filter(reason, service, tenant, since, until, state), limit, note)
    if payload is not None:
        if not ids or len(ids) != 1:
            refuse("--payload is for one dead letter: give one id")
        try:
            text = sys.stdin.buffer.read() if payload == Path("-") else payload.read_bytes()
        except OSError as error:
            refuse(f"--payload: cannot read {payload}: {error.strerror}")
        request["payload"] = base64.b64encode(text).decode()
    answer = _ask(_settings(data_dir, kafka, clickhouse, config), {**request, "as_of": as_of})
    _print_outcomes(answer, "replayed", as_json=as_json)


@app.command()
def discard(
    ids: Ids = None,
    reason: Reason = None,
    service: Service = None,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = ENTRIES_MAX,
    note: Note = "",
    as_json: AsJson = False,
    data_dir: DataDir = None,
    kafka: ProductionKafka = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Abandon dead letters, by id or by filter.

    A filter selects only open entries. Discarded entries can be read for dead_letters.retention_days.
    """
    request = _request("discard", ids, _filter(reason, service, tenant, since, until, None), limit, note)
    _print_outcomes(_ask(_settings(data_dir, kafka, clickhouse, config), request), "discarded", as_json=as_json)


def _filter(
    reason: str | None, service: str | None, tenant: str | None, since: str | None, until: str | None, state: str | None
) -> dict[str, str]:
    """Return the filters that were given, by the names of Filter.of. If one is wrong, exit with status 2."""
    given = {"reason": reason, "service_id": service, "tenant": tenant, "since": since, "until": until, "state": state}
    try:
        Filter.of(given, tenant)
    except ValueError as error:
        refuse(str(error))
    return {name: value for name, value in given.items() if value is not None}


def _request(do: str, ids: list[str] | None, filter_: dict[str, str], limit: int, note: str) -> dict[str, Any]:
    """Return the request of an action on entries. If it has both ids and filters, or neither, exit with status 2."""
    if bool(ids) == bool(filter_):
        refuse(f"{do} takes either ids or filters (--reason, --service, …)")
    return {"do": do, "ids": ids or [], "filter": filter_, "limit": limit, "note": note, "actor": getpass.getuser()}


def _settings(data_dir: Path | None, kafka: str | None, clickhouse: str | None, config: Path | None) -> Settings:
    return load_settings(config, {"data_dir": data_dir, "kafka.bootstrap": kafka, "clickhouse.url": clickhouse}).settings


def _ask(settings: Settings, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of the running collector. With Kafka and ClickHouse, or if none runs, answer from broker and store."""
    with failures():
        if not (settings.kafka.bootstrap and settings.clickhouse.url):
            try:
                return ask_dead_letters(settings.data_dir, request)
            except NotRunning:
                pass
        from collector.app import offline_queries  # noqa: PLC0415  # the engine: a second that others need not wait

        return offline_queries.dead_letters(settings, request)
    raise typer.Exit(FAILED)


def _print_outcomes(answer: dict[str, Any], expected: str, *, as_json: bool) -> None:
    """Print the outcome of each entry, and how many are `expected`. Exit with status 1 if an entry was rejected again."""
    outcomes = answer["outcomes"]
    if as_json:
        print_text(json.dumps(answer, indent=2))
    else:
        for outcome in outcomes:
            why = ": ".join(printable(outcome[name]) for name in ("reason", "message") if name in outcome)
            print_text(f"{outcome['id']}  {outcome['outcome']}{f'  {why}' if why else ''}")
        count = sum(outcome["outcome"] == expected for outcome in outcomes)
        print_notice(f"{count} of {len(outcomes)} {expected}{'; there are more that match' if answer['more'] else ''}")
    if any(outcome["outcome"] == "rejected_again" for outcome in outcomes):
        raise typer.Exit(FAILED)
