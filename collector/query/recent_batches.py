"""The requests that this process answered last.

They are kept as bytes (collector/runtime/latest_entries.py), since every request is noted here, and few are asked for.

Invariants:
1. A noted request is found by its id, with all of its fields, until `batches_max` later requests were noted
   (tests/unit/collector/query/test_recent_batches.py, test_what_was_noted_is_found).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.wire import Cursor, put_bytes, put_varint
from adapters.record import Adapted
from collector.runtime.latest_entries import LatestEntries

_TIME_BYTES: Final = 8
# The tag before each of the two texts.
_TEXT: Final = 0


class Recent(NamedTuple):
    """A request that this process has answered."""

    tenant: str
    source: int
    route: str
    received_time_unix_nano: int
    accepted: int
    rejected: Mapping[tuple[int, int], int]  # by (type, reason)
    repaired: Mapping[int, int]  # by kind
    dead_letters: int
    parts: int


class RecentBatches:
    """Keeps the last requests of this process. For one event loop, without locks."""

    def __init__(self, batches_max: int) -> None:
        self._batches: Final = LatestEntries(batches_max)

    def note(
        self, batch_id: bytes, tenant: str, source: int, route: str, received: i64, adapted: Adapted, dead_letters: int
    ) -> None:
        """Note a durable request. `received` is in nanoseconds since the Unix epoch."""
        writer = BytesWriter()
        write_i64_le(writer, received)
        put_bytes(writer, _TEXT, tenant.encode())
        put_bytes(writer, _TEXT, route.encode())
        put_varint(writer, source)
        put_varint(writer, adapted.accepted_count())
        put_varint(writer, dead_letters)
        put_varint(writer, len(adapted.parts))
        put_varint(writer, len(adapted.rejected))
        for (type_, reason), items in adapted.rejected.items():
            put_varint(writer, type_)
            put_varint(writer, reason)
            put_varint(writer, items)
        if adapted.repaired:
            for kind, count in adapted.repaired.items():
                put_varint(writer, kind)
                put_varint(writer, count)
        self._batches.put(batch_id, writer.getvalue())

    def find(self, batch_id: bytes) -> Recent | None:
        noted = self._batches.get(batch_id)
        return None if noted is None else _decoded(noted)


def _decoded(noted: bytes) -> Recent:
    cursor = Cursor(noted)
    cursor.position = _TIME_BYTES
    whole: i64 = len(noted)
    tenant = _text(cursor, whole)
    route = _text(cursor, whole)
    source = int(cursor.varint(whole))
    accepted = int(cursor.varint(whole))
    dead_letters = int(cursor.varint(whole))
    parts = int(cursor.varint(whole))
    rejected: dict[tuple[int, int], int] = {}
    for _ in range(int(cursor.varint(whole))):
        type_ = int(cursor.varint(whole))
        reason = int(cursor.varint(whole))
        rejected[type_, reason] = int(cursor.varint(whole))
    repaired: dict[int, int] = {}
    while cursor.position < whole:
        kind = int(cursor.varint(whole))
        repaired[kind] = int(cursor.varint(whole))
    return Recent(tenant, source, route, int(read_i64_le(noted, 0)), accepted, rejected, repaired, dead_letters, parts)


def _text(cursor: Cursor, whole: i64) -> str:
    cursor.position += 1
    size = cursor.varint(whole)
    start = cursor.position
    cursor.position = start + size
    return cursor.buffer[start : cursor.position].decode()
