"""The commands that query. They open the data directory themselves if no collector runs on it, or they ask servers."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from collector.api.query_client import QueryAnswer, QueryFailed, ask, ask_dead_letters
from collector.app.data_dir import check_there, is_embedded, offline_or_running, store_dir
from collector.app.queries import dead_letter_reports, replayer_of, reports_of_servers
from collector.app.storage import open_kafka, open_server, open_storage
from collector.app.writer import caught_up_with, written
from collector.broker.contract import BrokerError
from collector.config.settings import Settings
from collector.dead_letters.service import DeadLetterService, InvalidRequest
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError
from collector.telemetry import logs
from collector.telemetry.metrics import Metrics


def query_offline(settings: Settings, sql: str, format_: str) -> QueryAnswer:
    """Store the messages in the log of the data directory, then return the answer of its store. If a collector runs on the
    directory, return that collector's answer. Raises CannotRun, QueryFailed."""
    data_dir = settings.data_dir
    check_there(store_dir(data_dir), f"store in {data_dir}")
    logs.set_up_quietly(settings.logging)
    return offline_or_running(
        settings, lambda: asyncio.run(_query_offline(settings, sql, format_)), lambda: ask(data_dir, sql, format_)
    )


def query_server(settings: Settings, sql: str, format_: str) -> QueryAnswer:
    """Return the ClickHouse server's answer, without waiting for messages that are not stored yet. Raises QueryFailed."""
    logs.set_up_quietly(settings.logging)
    try:
        with contextlib.closing(open_server(settings)) as store:
            return QueryAnswer(store.query(sql, format_), 0)
    except StoreError as error:
        raise QueryFailed(str(error)) from error


def dead_letters(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request of DeadLetterService, by the broker and the store or by a running collector. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    if not settings.kafka.bootstrap:
        check_there(settings.data_dir, str(settings.data_dir))
    production = settings.kafka.bootstrap and not is_embedded(settings)
    answer = _dead_letters_of_servers if production else _dead_letters_offline
    try:
        return offline_or_running(
            settings,
            lambda: asyncio.run(answer(settings, request)),
            lambda: ask_dead_letters(settings.data_dir, request),
        )
    except (InvalidRequest, StoreError, BrokerError) as error:
        raise CannotRun(str(error)) from error


async def _query_offline(settings: Settings, sql: str, format_: str) -> QueryAnswer:
    metrics = Metrics()
    async with open_storage(settings, metrics, "query") as storage:
        try:
            async with written(settings, storage, metrics) as writer:
                behind = sum((await storage.broker.lag()).values())
                # Wait as long as the number of messages that are not stored decreases.
                while not await writer.drained(max(1.0, settings.query.wait_s)):
                    before, behind = behind, sum((await storage.broker.lag()).values())
                    if behind >= before:
                        break
                else:
                    behind = 0
        except BrokerError as error:
            raise CannotRun(f"cannot store what Kafka still has before the query: {error}") from error
        try:
            return QueryAnswer(await asyncio.to_thread(storage.store.query, sql, format_), behind)
        except StoreError as error:
            raise QueryFailed(str(error)) from error


async def _dead_letters_offline(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    metrics = Metrics()
    async with open_storage(settings, metrics, "dlq") as storage, written(settings, storage, metrics) as writer:
        reports = dead_letter_reports(settings, storage.store, caught_up_with(storage, writer), settings.query.wait_s)
        return await DeadLetterService(reports, replayer_of(settings, storage.broker, reports)).answer(request)


async def _dead_letters_of_servers(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    async with (
        open_kafka(settings, Metrics(), reads=False) as opened,
        reports_of_servers(settings, settings.query.wait_s) as reports,
    ):
        assert reports is not None
        return await DeadLetterService(reports, replayer_of(settings, opened.broker, reports)).answer(request)
