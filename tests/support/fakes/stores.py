"""A store in memory that keeps collector/store/contract.py, and fails as the test sets it.

It takes payloads in blocks, as ClickHouse does, and knows a block by its token: so an insert that died half way is completed,
not doubled, by its repetition.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from google.protobuf.message import DecodeError
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch, DeadLetterEvent
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, Receipt, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1

from collector.broker.contract import DEAD_LETTERS_TOPIC, Payload
from collector.store.contract import NOTHING, Completed, StoreOutOfMemory, StoreOutOfSpace, StoreRefusedData, StoreUnavailable
from collector.store.payload_index import MessageKey

BLOCK_RECORDS = 2


class Crash(BaseException):
    """The process dies here."""


def batch(*names: str) -> bytes:
    """A message: a record for each name. One that begins with `bad` is refused."""
    return TelemetryBatch(records=[TelemetryRecord(service_id=name, item_count=1) for name in names]).SerializeToString()


def batch_v1(*names: str) -> bytes:
    """The same, as version 1 wrote it."""
    records = [TelemetryRecordV1(service_id=name, source=SOURCE_OTLP, item_count=1) for name in names]
    return TelemetryBatchV1(records=records).SerializeToString()


def replayed(name: str, batch_id: bytes) -> bytes:
    """The record of a replay, by the same names; with its receipt."""
    return TelemetryBatch(
        records=[
            TelemetryRecord(service_id=name, item_count=1, batch_id=batch_id),
            TelemetryRecord(service_id=f"receipt of {name}", receipt=Receipt(received=1), batch_id=batch_id),
        ]
    ).SerializeToString()


class Copy(NamedTuple):
    """A message that has a fingerprint."""

    at: int  # when it was received
    message: MessageKey
    repeated: int  # items that were left out of it


class FakeStore:
    """`rows` counts how often each record is stored, by name; entries by their message, events by their action and note.

    `batches`: under which parts the receipts of each batch are stored.
    """

    def __init__(
        self,
        faults: Iterable[str] = (),
        crash_at: str | None = None,
        down_for: str | None = None,
        slow_s: float = 0.0,
        forgets: bool = False,
        memory_records: int | None = None,
        outlives_s: float = 0.0,
        completes: bool = True,
        disk_records: int | None = None,
    ) -> None:
        """`faults`: what happens at the first insert that is not refused, the second, and so on; "part damaged": it succeeds,
        and no row is found. `crash_at`: one more, once.
        "token without rows": the process dies after the entry in the deduplication log, before the rows; "rows without token":
        the other way round. "receipts without items": it dies between the two tables.
        `forgets`: it has no deduplication. `memory_records`: an insert of more records exceeds the limit of one insert.
        `outlives_s`: how long an insert without an answer may go on.
        `completes`: its tokens and its rows are not written together. `disk_records`: the disk is full for more."""
        self.rows: Counter[str] = Counter()
        self.batches: dict[UUID, set[int]] = {}
        self.rows_of: defaultdict[tuple[bytes, bytes], list[Copy]] = defaultdict(list)  # by tenant and fingerprint
        self.items: Counter[MessageKey] = Counter()
        self.repeated: Counter[tuple[bytes, int]] = Counter()  # items that were left out, by batch id and part
        self.looked_up = 0  # fingerprints that were asked for
        self.blocks: dict[tuple[str, int], list[str]] = {}
        self.inserts = 0
        self.inserting = False
        self._faults = iter([*([crash_at] if crash_at else []), *faults])
        self._down_for = down_for
        self._slow_s = slow_s
        self._forgets = forgets
        self.memory_records = memory_records
        self._outlives_s = outlives_s
        self._completes = completes
        self.disk_records = disk_records
        self.completions = 0
        self.asked: list[str] = []  # for which tokens inserts were tried
        self._turn = threading.Lock()

    def fail_next(self, *faults: str) -> None:
        """What happens at the next inserts."""
        self._faults = iter(faults)

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        with self._turn:
            self.inserting = True
            time.sleep(self._slow_s)
            try:
                self._insert(topic, b"".join(payloads), token)
            finally:
                self.inserting = False

    def _insert(self, topic: str, payload: bytes, token: str) -> None:
        names = _names(topic, payload)
        self.inserts += 1
        self.asked.append(token)
        fault = next(self._faults, "")
        if fault == "insert begun":
            raise Crash(fault)
        if fault == "defect":
            raise RuntimeError(fault)
        if fault == "down" or topic == self._down_for:
            raise StoreUnavailable("away")
        if fault == "no memory":
            raise StoreOutOfMemory("(total) memory limit exceeded", of_this_insert=False)
        for bad in (name for name in names if name.startswith("bad")):
            raise StoreRefusedData(f"cannot read {bad}")
        if self.memory_records is not None and len(names) > self.memory_records:
            raise StoreOutOfMemory("Query memory limit exceeded", of_this_insert=True)
        if self.disk_records is not None and len(names) > self.disk_records:
            raise StoreOutOfSpace("Cannot reserve 14.10 MiB, not enough space")
        if fault == "part damaged":
            return
        if fault == "receipts without items":
            receipts = [record.service_id for record in TelemetryBatch.FromString(payload).records if not record.item_count]
            self.rows.update(receipts)
            self._note_receipts(topic, payload, receipts)
            raise Crash(fault)
        for start in range(0, len(names), BLOCK_RECORDS):
            block = names[start : start + BLOCK_RECORDS]
            if fault == "token without rows" and (token, start) not in self.blocks:
                self.blocks[token, start] = block
                raise Crash(fault)
            if fault == "rows without token" and (token, start) not in self.blocks:
                self.rows.update(block)
                self._note_receipts(topic, payload, block)
                raise Crash(fault)
            if self._forgets or self.blocks.setdefault((token, start), block) is block:
                self.rows.update(block)
                self._note_receipts(topic, payload, block)
            if fault == "insert half done":
                raise Crash(fault)
            if fault == "half done, then no memory":
                raise StoreOutOfMemory("(total) memory limit exceeded", of_this_insert=False)
            if fault == "half done, then down":
                raise StoreUnavailable("gone half way")
        if fault == "inserted":
            raise Crash(fault)
        if fault == "answer lost":
            raise StoreUnavailable("no answer")

    @property
    def insert_outlives_s(self) -> float:
        return self._outlives_s

    def holds(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        try:
            return all(self.rows[name] for name in _names(topic, payload))
        except StoreRefusedData:
            return False

    def untouched(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        return not any(self.rows[name] for name in _names(topic, payload))

    def can_complete(self, topic: str, payload: bytes) -> bool:
        return self._completes

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        with self._turn:
            names = _names(topic, payload)
            self.completions += 1
            fault = next(self._faults, "")
            if fault in ("down", "answer lost"):
                raise StoreUnavailable("away")
            if fault in ("no memory", "half done, then no memory"):
                raise StoreOutOfMemory("(total) memory limit exceeded", of_this_insert=False)
            for bad in (name for name in names if name.startswith("bad")):
                raise StoreRefusedData(f"cannot read {bad}")
            if self.memory_records is not None and len(names) > self.memory_records:
                raise StoreOutOfMemory("Query memory limit exceeded", of_this_insert=True)
            if self.disk_records is not None and len(names) > self.disk_records:
                raise StoreOutOfSpace("Cannot reserve 14.10 MiB, not enough space")
            missing = [name for name in names if not self.rows[name]]
            if fault == "part damaged":
                return Completed({"rows": len(missing)}, {})
            for count, name in enumerate(missing):
                if count and fault in ("insert half done", "token without rows", "rows without token"):
                    raise Crash(fault)
                if count and fault == "half done, then down":
                    raise StoreUnavailable("gone half way")
                self.rows[name] += 1
                self._note_receipts(topic, payload, [name])
            if fault == "inserted":
                raise Crash(fault)
            return Completed({"rows": len(missing)} if missing else {}, {})

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        asked = {(batch_id, part) for batch_id in batch_ids for part in self.batches.get(batch_id, set()) - {besides_part}}
        return {message[0] for message in asked if self.items[message]}

    def copies(
        self,
        topic: str,
        asked: Mapping[tuple[bytes, bytes], int],
        besides: Collection[tuple[UUID, int]],
        since_ns: int,
        until_ns: int,
    ) -> dict[tuple[bytes, bytes], list[int]]:
        self.looked_up += len(asked)

        def is_stored(pair: tuple[bytes, bytes], row: Copy) -> bool:
            is_asked = since_ns <= row.at <= until_ns and row.message not in besides
            return is_asked and bool(row.repeated or self.items[row.message] >= asked[pair])

        found = {pair: [row.at for row in self.rows_of[pair] if is_stored(pair, row)] for pair in asked}
        return {pair: times for pair, times in found.items() if times}

    def _note_receipts(self, topic: str, payload: bytes, stored: list[str]) -> None:
        if topic != DEAD_LETTERS_TOPIC:
            for record in TelemetryBatch.FromString(payload).records:
                if record.HasField("receipt") and record.service_id in stored:
                    self.batches.setdefault(UUID(bytes=record.batch_id), set()).add(record.batch_part)
                message = UUID(bytes=record.batch_id or bytes(16)), record.batch_part
                if record.service_id in stored:
                    self.items[message] += record.item_count
                if record.fingerprint and record.service_id in stored:
                    pair = record.tenant_id.encode(), record.fingerprint
                    self.rows_of[pair].append(Copy(record.received_time_unix_nano, message, record.repeated_items))
                    self.repeated[record.batch_id, record.batch_part] += record.repeated_items

    def query(self, sql: str, format_: str) -> bytes:
        raise StoreUnavailable("this store answers no queries")

    def read(self, sql: str, format_: str) -> bytes:
        raise StoreUnavailable("this store answers no queries")

    def ping(self) -> None:
        """It is there."""


def _names(topic: str, payload: bytes) -> list[str]:
    try:
        if topic == DEAD_LETTERS_TOPIC:
            records = DeadLetterBatch.FromString(payload).records
            return [_event_name(record.event) if record.HasField("event") else record.letter.message for record in records]
        return [record.service_id for record in TelemetryBatch.FromString(payload).records]
    except DecodeError as error:
        raise StoreRefusedData(f"{len(payload)} bytes are no batch: {error}") from error


def _event_name(event: DeadLetterEvent) -> str:
    """Its action, and its note."""
    return f"{event.action} {event.note}"
