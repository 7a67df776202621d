"""The sessions of a store in ClickHouse, and the settings of each kind of statement."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from collector.store import time_zone
from collector.store.contract import StoreUnavailable
from collector.store.engine import load_engine
from collector.store.insert import SETTINGS, Insert, Settings, embedded_inserts, server_inserts
from collector.store.options import QueryLimits, StoreOptions
from collector.store.server import ServerOptions, one_line

# Enough to parse a statement of any length that query.sql_bytes_max allows.
_CHECK_MEMORY_BYTES_MAX: Final = 1024**3


class Sessions(NamedTuple):
    """The clients of a store. In the embedded engine, each client is one session and serializes its own calls. On a server, all
    of them are one client.

    `reading` and `checking` are the settings of each query of the readers and of the checker. They are None if the sessions
    have these settings."""

    writer: Client
    control: Client  # for statements that must not wait for the others
    readers: tuple[Client, ...]  # the first half for statements of users, the others for our own
    checker: Client  # parses statements of users
    insert: Insert  # with the writer's client
    inserting: Settings  # the settings of an insert
    reading: Mapping[str, str | int | float] | None = None
    checking: Mapping[str, str | int | float] | None = None


def close_sessions(sessions: Sessions, *, is_server: bool) -> None:
    """Close each client once. On a server all of them are one client."""
    clients = (*sessions.readers, sessions.checker, sessions.control, sessions.writer)
    for client in {id(client): client for client in clients}.values():
        client.close()
        if is_server:
            client.close_connections()


def connect_embedded(path: Path, settings: Mapping[str, str | int | float]) -> Client:
    """Return a new session of the engine in this process. Raises ClickHouseError, OSError."""
    return clickhouse_connect.get_client(interface="chdb", path=str(path), settings=dict(settings))


def embedded_sessions(path: Path, options: StoreOptions) -> Sessions:
    """Open the engine in this process, its data under the directory `path`. Raises StoreUnavailable."""
    opened: list[Client] = []

    def session(settings: Mapping[str, str | int | float]) -> Client:
        client = connect_embedded(path, settings)
        opened.append(client)
        return client

    try:
        path.mkdir(parents=True, exist_ok=True)
        has_zone = time_zone.choose(path)
        try:
            load_engine(options.engine_idle_threads_max)
        except ImportError as error:  # the engine does not know the zone
            raise OSError(f"{error}; its time zone is in {path / time_zone.FILE}") from error
        writer = session({})
        if not has_zone:
            time_zone.note(path, lambda: str(writer.command("SELECT timezone()")))
        readers = tuple(session(reader_settings(options.queries)) for _ in range(2 * options.queries.concurrent_max))
        checker = session(_checker_settings(options.queries))
        inserting = _inserting(options)
        inserts = embedded_inserts(writer, inserting)
        return Sessions(writer, session({}), readers, checker, inserts, inserting)
    except (ClickHouseError, OSError) as error:
        for client in opened:
            client.close()
        raise StoreUnavailable(f"cannot open the store in {path}: {one_line(error)}") from error


def connector(where: ServerOptions, options: StoreOptions, insert_quorum: int | Literal["auto"]) -> Callable[[], Sessions]:
    """Return a function that connects to a server. It raises StoreUnavailable, StoreMisconfigured."""

    def connect() -> Sessions:
        client = where.connect()
        # If a server does not know one of these settings, it also lacks the behaviour that the setting turns off.
        known = {name: value for name, value in _inserting(options).items() if name in client.server_settings}
        quorum: Settings = {"insert_quorum": insert_quorum} if insert_quorum else {}
        inserting: Settings = {**known, **quorum}
        return Sessions(
            client,
            client,
            (client,) * (2 * options.queries.concurrent_max),
            client,
            server_inserts(client, inserting),
            inserting,
            reader_settings(options.queries),
            _checker_settings(options.queries),
        )

    return connect


def _inserting(options: StoreOptions) -> dict[str, str | int]:
    return {**SETTINGS, "max_memory_usage": options.insert_memory_bytes_max}


def reader_settings(limits: QueryLimits) -> dict[str, str | int | float]:
    """Return the settings of a session that only reads."""
    return {
        "max_execution_time": limits.time_max_s,
        "max_memory_usage": limits.memory_bytes_max,
        "max_result_rows": limits.result_rows_max,
        "max_result_bytes": limits.result_bytes_max,
        "result_overflow_mode": "throw",
        # By default the engine decides by its standard output, which is the collector's and not the client's.
        "output_format_pretty_color": 0,
        "readonly": 1,  # the last, since it forbids SET
    }


def _checker_settings(limits: QueryLimits) -> dict[str, str | int | float]:
    """Return the settings of the checker, without limits of the answer's size, since its answers are syntax trees."""
    return {
        "max_execution_time": limits.time_max_s,
        "max_memory_usage": _CHECK_MEMORY_BYTES_MAX,
        "readonly": 1,
    }
