"""A store in memory that keeps collector/store/contract.py, and fails as it is told.

It takes payloads in blocks, as ClickHouse does, and knows a block by its token: so an insert that died half way is completed,
not doubled, by its repetition.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from infrasage.v1.telemetry_pb2 import TelemetryBatch, TelemetryRecord

from collector.store.contract import StoreRefusedData, StoreUnavailable

BLOCK_RECORDS = 2


class Crash(BaseException):
    """The process dies here."""


def batch(*names: str) -> bytes:
    """A message: a record for each name. One that begins with `bad` is refused."""
    return TelemetryBatch(records=[TelemetryRecord(service_id=name, item_count=1) for name in names]).SerializeToString()


class FakeStore:
    """`rows` counts how often each record is stored, by name."""

    def __init__(
        self,
        faults: Iterable[str] = (),
        crash_at: str | None = None,
        down_for: str | None = None,
        slow_s: float = 0.0,
        forgets: bool = False,
    ) -> None:
        """`faults`: what happens at the first insert that is not refused, the second, and so on. `crash_at`: one more, once.
        `forgets`: it has no deduplication."""
        self.rows: Counter[str] = Counter()
        self.blocks: dict[tuple[str, int], list[str]] = {}
        self.inserts = 0
        self.inserting = False
        self._faults = iter([*([crash_at] if crash_at else []), *faults])
        self._down_for = down_for
        self._slow_s = slow_s
        self._forgets = forgets
        self._turn = threading.Lock()

    def insert(self, topic: str, payload: bytes, token: str) -> None:
        with self._turn:
            self.inserting = True
            time.sleep(self._slow_s)
            try:
                self._insert(topic, payload, token)
            finally:
                self.inserting = False

    def _insert(self, topic: str, payload: bytes, token: str) -> None:
        names = _names(payload)
        self.inserts += 1
        fault = next(self._faults, "")
        if fault == "insert begun":
            raise Crash(fault)
        if fault == "defect":
            raise RuntimeError(fault)
        if fault == "down" or topic == self._down_for:
            raise StoreUnavailable("away")
        for bad in (name for name in names if name.startswith("bad")):
            raise StoreRefusedData(f"cannot read {bad}")
        for start in range(0, len(names), BLOCK_RECORDS):
            block = names[start : start + BLOCK_RECORDS]
            if self._forgets or self.blocks.setdefault((token, start), block) is block:
                self.rows.update(block)
            if fault == "insert half done":
                raise Crash(fault)
            if fault == "half done, then down":
                raise StoreUnavailable("gone half way")
        if fault == "inserted":
            raise Crash(fault)
        if fault == "answer lost":
            raise StoreUnavailable("no answer")

    def holds(self, topic: str, payload: bytes) -> bool:
        try:
            return all(self.rows[name] for name in _names(payload))
        except StoreRefusedData:
            return False

    def query(self, sql: str, format_: str) -> bytes:
        raise StoreUnavailable("this store answers no queries")

    def ping(self) -> None:
        """It is there."""


def _names(payload: bytes) -> list[str]:
    try:
        return [record.service_id for record in TelemetryBatch.FromString(payload).records]
    except DecodeError as error:
        raise StoreRefusedData(f"{len(payload)} bytes are no batch: {error}") from error
