"""Requests that are sent again through another gateway, with the real engine: stored once, counted, and said so."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_LOGS
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from support.fakes.brokers import LIMITS, TOPICS
from support.fakes.receiving import NOW_UNIX_NANO, Receivers, receivers
from support.fakes.writing import Observed
from support.reopened_store import store_with_tables

import adapters.otlp.logs
from adapters.codec.json_parts import JsonPartsCount
from adapters.record import SOURCE_OTLP
from collector.audit.reconcile import audit
from collector.audit.report import MINUTE_NS, Report, Window
from collector.broker.contract import LOGS_TOPIC, Message
from collector.broker.local_log import LocalLog
from collector.ingest.reading import Input
from collector.ingest.request_fingerprints import HASHED, RequestFingerprints
from collector.query.batches import BatchReports
from collector.query.reader import Reader
from collector.query.recent_batches import RecentBatches
from collector.store.clickhouse import ClickHouseStore
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope
from collector.writer.repetitions import Repetitions
from collector.writer.store_refusals import RefusedItem
from collector.writer.writer import Writer, WriterLimits

WINDOW_S = 900
ACME = Caller("acme", Scope.INGEST, UNLIMITED, "k1")
LOGS = Input(adapters.otlp.logs.adapt, JsonPartsCount, SOURCE_OTLP, "/v1/logs", PAYLOAD_FORM_OTLP_LOGS)
WRITER_LIMITS = WriterLimits(
    bytes_max=1 << 24, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0.1, retry_max_s=1
)


def logs(first: int, records: int, padding: int = 0) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for number in range(first, first + records):
        scope.log_records.add(time_unix_nano=NOW_UNIX_NANO + 1 + number).body.string_value = f"{number}" + "x" * padding
    return request.SerializeToString()


def gateway() -> Receivers:
    """One of several: it knows nothing of the others."""
    return receivers(fingerprints=RequestFingerprints(WINDOW_S, HASHED, 10), message_bytes_max=1 << 14)


async def send(body: bytes, messages: int | None = None) -> tuple[str, list[Message]]:
    """Through a gateway of its own. `messages`: after so many it breaks off."""
    made = gateway()
    outcome = await made.pipeline.ingest(LOGS, body, ACME, lambda _size: None)
    return str(outcome.batch_id), made.producer.messages[:messages]


async def store_all(log: LocalLog, store: ClickHouseStore, messages: Sequence[Message]) -> Observed:
    """Append, each message for itself as Kafka would keep it, and let a new writer store what is there."""

    async def keep(_refused: Sequence[RefusedItem]) -> Mapping[str, int]:
        raise AssertionError("nothing is refused")

    for message in messages:
        await log.append([message])
    observed = Observed()
    writer = Writer(log, store, keep, WRITER_LIMITS, observed, repetitions=Repetitions(store, WINDOW_S, 1000, observed))
    running = asyncio.create_task(writer.run())
    assert await writer.drained(60)
    writer.stop()
    await running
    return observed


def rows(store: ClickHouseStore, sql: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.query(sql, "JSONEachRow").splitlines()]


def audited(store: ClickHouseStore) -> Report:
    return audit(lambda sql: rows(store, sql), Window(NOW_UNIX_NANO - MINUTE_NS, NOW_UNIX_NANO + MINUTE_NS))


async def test_a_request_through_several_gateways_is_stored_once(tmp_path: Path) -> None:
    """Whole or broken off in between, in one range or in several: the audit counts duplicates, and adds up to zero."""
    store = store_with_tables(tmp_path / "store")
    small, large = logs(0, 3), logs(100, 60, padding=1000)
    async with await LocalLog.open(tmp_path / "log", LIMITS, TOPICS) as log:
        first_id, first = await send(small)
        second_id, second = await send(small)
        await store_all(log, store, [*first, *second])
        third_id, third = await send(small)
        observed = await store_all(log, store, third)
        assert {LOGS_TOPIC: 1} == observed.repeated
        _, begun = await send(large, messages=2)
        whole_id, whole = await send(large)
        assert len(whole) >= 4
        await store_all(log, store, [*begun, *whole])
        counts = rows(store, "SELECT uniqExact(Body) AS Bodies, count() AS Rows FROM otel_logs")
        assert [{"Bodies": 63, "Rows": 63}] == [{name: int(value) for name, value in row.items()} for row in counts]

        found = audited(store)
        total = found.topics[LOGS_TOPIC]
        stored_of_begun = int(rows(store, f"SELECT count() AS Rows FROM otel_logs WHERE BatchId = '{whole_id}'")[0]["Rows"])
        duplicates = 3 + 3 + (60 - stored_of_begun)
        assert (9 + 60, 63, duplicates) == (total.accepted, total.stored, total.duplicates)
        # Nobody got an answer to the attempt that broke off: only a broker that keeps its messages can say so.
        assert [f"no receipt; logs: accepted 0, stored {60 - stored_of_begun}, dead letters 0"] == [
            fault.what for fault in found.faults
        ]

        async def at_once(_wait_s: float) -> int:
            return 0

        reports = BatchReports(Reader(store.query, at_once, 1), RecentBatches(0))
        for batch_id, expected in ((first_id, (0, None)), (second_id, (3, first_id)), (third_id, (3, first_id))):
            answer = await reports.find(UUID(batch_id), "acme")
            assert answer is not None
            assert ("stored", *expected) == (answer["state"], answer["duplicates"], answer["duplicate_of"])
    store.close()
