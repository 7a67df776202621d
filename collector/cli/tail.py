"""The command tail: show a bounded sample of records as they are accepted or rejected."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import uuid4

import typer

from collector.api import query_client
from collector.cli.common import (
    Config,
    DataDir,
    endpoint_of,
    failures,
    key_of,
    load_settings,
    print_notice,
    print_text,
    printable,
    refuse,
)
from collector.runtime.errors import CannotRun

# Returns the records since the last call. Raises CannotRun; if another call may help, its subclass Away.
Ask = Callable[[], Mapping[str, Any]]

_INTERVAL_S: Final = 0.5
_SHOWN_MAX: Final = 200


class CollectorUnavailable(CannotRun):
    """The collector does not answer now, but may answer later."""


def tail(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only records of this tenant.", show_default="all")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Only records of this service.", show_default="all")] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type", help="Only records of this type: metric, log, trace, event, profile or slo.", show_default="all"
        ),
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show rejected items instead of accepted ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on each line.")] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="The collector's address, if it does not run on --data-dir. This needs a key that may read.",
            show_default="none",
        ),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="A file with the API key to send.", show_default="none")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Show records as they are accepted, until Ctrl-C.

    The records are a sample: those that do not fit are counted. No request waits for this command. While the collector is
    away, the command waits.
    """
    from collector.query.live_records import question_of  # noqa: PLC0415  # protobuf, which other commands do not need

    watch = uuid4().hex
    try:
        question_of(tenant, service, type_, watch, is_rejected=rejected)
    except ValueError as error:
        refuse(f"--{error}")
    if endpoint is None:
        request = {"watch": watch, "tenant": tenant, "service": service, "type": type_, "rejected": rejected}
        ask = _by_socket(load_settings(config, {"data_dir": data_dir}).settings.data_dir, request)
    else:
        given = {"watch": watch, "tenant": tenant, "service_id": service, "type": type_, "rejected": "1" if rejected else None}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        ask = _by_page(endpoint_of(endpoint, may_have_path=True), key_of(key_file), query)
    with failures():
        _follow(ask, as_json=as_json)


def _by_socket(data_dir: Path, request: Mapping[str, Any]) -> Ask:
    """Return a function that asks the collector that runs on `data_dir`. `request` is as in query_client.ask_tail."""

    def ask() -> Mapping[str, Any]:
        try:
            return query_client.ask_tail(data_dir, request)
        except query_client.NotRunning:
            raise CollectorUnavailable(
                f"no collector runs on {data_dir}: choose another directory with --data-dir, or an address with --endpoint"
            ) from None
        except query_client.QueryFailed as error:
            raise CollectorUnavailable(str(error)) from None

    return ask


def _by_page(endpoint: str, key: str | None, query: str) -> Ask:
    """Return a function that asks the collector at `endpoint`. `query` is the query of the page."""
    from collector.app.page_fetcher import KeyRefused, PageFetcher, PageUnavailable  # noqa: PLC0415  # other commands do not need it
    from collector.query.live_records import LIVE_PATH  # noqa: PLC0415  # as above

    fetcher = PageFetcher(endpoint, key)

    def ask() -> Mapping[str, Any]:
        try:
            page = fetcher.get(f"{LIVE_PATH}?{query}")
            fetcher.check(LIVE_PATH, page, (200,))
            answer: Mapping[str, Any] = json.loads(page.body)
        except KeyRefused as error:
            raise CannotRun(str(error)) from error
        except (PageUnavailable, ValueError) as error:
            raise CollectorUnavailable(str(error)) from error
        return answer

    return ask


def _follow(ask: Ask, *, as_json: bool) -> None:
    """Print records until Ctrl-C, or until standard output has no reader.

    Raises CannotRun if the first request fails, or if a later one can't succeed by waiting."""
    try:
        ask()
        print_notice("watching; Ctrl-C ends it")
        is_away = False
        while True:
            time.sleep(_INTERVAL_S)
            try:
                answer = ask()
            except CollectorUnavailable as error:
                if not is_away:
                    print_notice(f"waiting: {printable(str(error))}")
                is_away = True
                continue
            if is_away:
                print_notice("watching again")
            is_away = False
            for record in answer["records"]:
                if not print_text(json.dumps(record) if as_json else line_of(record)):
                    return
            if answer["left_out"]:
                print_notice(f"and {answer['left_out']:,} more")
    except KeyboardInterrupt:
        return


def line_of(record: Mapping[str, Any]) -> str:
    """Return a record as one line for people, of at most _SHOWN_MAX characters."""
    start = f"{record['received']}  {record['tenant']}  {record['service'] or '-'}  {record['type']}"
    if "reason" in record:
        rest = f"rejected: {record['reason']}: {record['message']}"
    else:
        parts = [record[name] for name in ("severity", "name", "body", "trace_id") if record.get(name)]
        if "value" in record:
            parts.append(f"= {record['value']}")
        if "count" in record:
            parts.append(f"count {record['count']} sum {record['sum']}")
        if "duration_ns" in record:
            parts.append(f"{record['duration_ns'] / 1e6:.3f} ms")
        parts += [f"{key}={value}" for key, value in record["attributes"].items()]
        rest = "  ".join(map(str, parts))
    text = printable(f"{start}  {rest}")
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"
