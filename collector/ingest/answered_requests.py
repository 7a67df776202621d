"""Remembers the latest answers of one process, to give them again.

Invariants:
1. An answer is found by its tenant and fingerprint, with its batch id, time and all its counts, unless `answers_max` other
   answers were added later. Nothing else is found
   (tests/unit/collector/ingest/test_answered_requests.py, test_answers_against_a_dict).
"""

from typing import Final, NamedTuple

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64
from uuid_utils import UUID

from adapters.codec.wire import Cursor, put_varint
from adapters.record import Adapted
from collector.runtime.latest_entries import LatestEntries

_ID_BYTES: Final = 16
_HEAD_BYTES: Final = _ID_BYTES + 8


class AnsweredRequest(NamedTuple):
    """A request that this process accepted as a whole. `counts` has its numbers and none of its data. `received_unix_nano` is
    the time of its last copy that was appended."""

    batch_id: UUID
    counts: Adapted
    received_unix_nano: int


class AnsweredRequests:
    """Holds the latest answers of one process. Used by one event loop, so it has no locks."""

    def __init__(self, answers_max: int) -> None:
        self._answers: Final = LatestEntries(answers_max)

    def find(self, tenant: str, fingerprint: bytes) -> AnsweredRequest | None:
        answer = self._answers.get(_key(tenant, fingerprint))
        return None if answer is None else _decoded(answer)

    def add(self, tenant: str, fingerprint: bytes, batch_id: bytes, adapted: Adapted, received_unix_nano: int) -> None:
        """Remember an answer. `batch_id` has 16 bytes. Only the counts of `adapted` are kept."""
        self._answers.put(_key(tenant, fingerprint), _encoded(batch_id, adapted, received_unix_nano))


def _key(tenant: str, fingerprint: bytes) -> bytes:
    """Return the key of an entry. All fingerprints have one length, so no two tenants' keys are equal."""
    return fingerprint + tenant.encode()


def _encoded(batch_id: bytes, adapted: Adapted, received_unix_nano: i64) -> bytes:
    """Return the batch id, the time, then varints: samples, histograms, exemplars, and the accepted items of each type."""
    writer = BytesWriter()
    writer.write(batch_id)
    write_i64_le(writer, received_unix_nano)
    put_varint(writer, adapted.samples)
    put_varint(writer, adapted.histograms)
    put_varint(writer, adapted.exemplars)
    for items in adapted.accepted:
        put_varint(writer, items)
    return writer.getvalue()


def _decoded(answer: bytes) -> AnsweredRequest:
    counts = Adapted()
    cursor = Cursor(answer)
    cursor.position = _HEAD_BYTES
    whole: i64 = len(answer)
    counts.samples = int(cursor.varint(whole))
    counts.histograms = int(cursor.varint(whole))
    counts.exemplars = int(cursor.varint(whole))
    for type_ in range(len(counts.accepted)):
        counts.accepted[type_] = int(cursor.varint(whole))
    return AnsweredRequest(UUID(bytes=answer[:_ID_BYTES]), counts, int(read_i64_le(answer, _ID_BYTES)))
