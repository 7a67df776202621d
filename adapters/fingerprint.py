"""The fingerprint of a message: the same in each repetition of its request, so that the writer stores the message once.

A request that may be recognized has a fingerprint of 16 bytes, XXH3-128 of the sent bytes. That hash is fast and not
cryptographic: a sender can make two bodies that have the same. So fingerprints are compared within one tenant only, and a
sender can suppress nothing but its own data. docs/adr/0041-repetitions-are-left-out-by-the-writer.md explains the choice.

Invariants:
1. The same body on the same route with the same key has the same fingerprint, in any process; another body, route or key has
   another (tests/unit/adapters/test_fingerprint.py, test_a_fingerprint_tells_requests_apart).
2. `read_fingerprint` finds the fingerprint that `put_fingerprint` wrote into a message, and none in a message that has none
   (test_a_message_says_its_fingerprint).
3. The stand-in of a message has no items. It has the fields of the message's last record, and the number of the items (the
   same test).
4. A message is read in the same way from a view and from bytes (test_a_view_is_read_as_its_bytes_are).
5. The partition of a fingerprint depends only on the fingerprint and the number of partitions. If partitions are added, it
   stays the same or becomes a new one (test_added_partitions_take_their_share_and_move_nothing_else).
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_be
from mypy_extensions import i64
from xxhash import xxh3_64_digest, xxh3_64_intdigest, xxh3_128_digest

from adapters.codec.wire import Cursor, NonCanonical, put_bytes, put_varint
from adapters.record import Adapted
from adapters.record_tags import FINGERPRINT, ITEM_COUNT, RECEIVED, RECORD, REPEATED_ITEMS, TENANT

FINGERPRINT_BYTES: Final = 16
# A record of fewer bytes is copied sooner than skipped.
_SKIPPED_BYTES_MIN: Final = 4096
# A record's tag and length have at most so many bytes.
_HEAD_BYTES: Final = 11
_RANDOM_MAX: Final = float(1 << 53)
_RANDOM_BITS: Final = (1 << 53) - 1


class Fingerprint:
    """A `Fingerprint` identifies a message whose repetitions are recognized: its tenant, value, and time of receipt."""

    def __init__(self, tenant: bytes, value: bytes, received_time_unix_nano: int) -> None:
        self.tenant: Final = tenant
        self.value: Final = value
        self.received_time_unix_nano: Final = received_time_unix_nano


def request_seed(route: str) -> int:
    """Return the hash seed that makes the fingerprints of a route differ from those of others."""
    return xxh3_64_intdigest(route.encode())


def request_fingerprint(seed: int, body: bytes, key: bytes) -> bytes:
    """Return the fingerprint of a request. `key` is the key that its sender gave, or empty."""
    digest = xxh3_128_digest(body, seed)
    return xxh3_128_digest(digest + key, seed) if key else digest


def layout_fingerprints(request: bytes, adapted: Adapted) -> list[bytes]:
    """Return the fingerprints of a request's messages. Only messages with the same items may have the same. So if items were
    rejected, or there are several messages, the fingerprints depend on which items each message has."""
    parts = adapted.parts
    if len(parts) == 1 and not adapted.rejected:
        return [request]
    layout = [f"{part.signal} {part.item_count} {part.payload_bytes}" for part in parts]
    rejected = sorted(adapted.rejected.items())
    indexes = [rejection.index for rejection in adapted.rejections]
    whole = request + f"{layout} {rejected} {indexes}".encode()
    return [xxh3_128_digest(whole, index) for index in range(len(parts))]


def partition_of(fingerprint: bytes, partitions: int) -> int:
    """Return the partition of messages with this fingerprint. If partitions are added, few fingerprints move, and only to
    the new ones (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014)."""
    chosen = 0
    jump = 0
    while jump < partitions:
        chosen = jump
        # 53 random bits that the fingerprint and this jump decide, as a number above 0 and up to 1.
        random: i64 = read_i64_be(xxh3_64_digest(fingerprint, chosen), 0) >> 11 & _RANDOM_BITS
        part = float(random + 1) / _RANDOM_MAX
        jump = int(float(chosen + 1) / part)
    return chosen


def put_fingerprint(record: BytesWriter, fingerprint: bytes) -> None:
    """Write a fingerprint as the last field of a TelemetryRecord."""
    put_bytes(record, FINGERPRINT, fingerprint)


def read_fingerprint(message: bytes | memoryview) -> Fingerprint | None:
    """Return the fingerprint in the last record of a message; None if repetitions of this message are not recognized."""
    payload = _end_of(message) if isinstance(message, memoryview) else message
    cursor = Cursor(payload)
    try:
        start, end = _last_record(cursor)
        tenant, value, received = b"", b"", 0
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            if tag == FINGERPRINT:
                value = payload[cursor.start : cursor.position]
            elif tag == TENANT:
                tenant = payload[cursor.start : cursor.position]
            elif tag == RECEIVED:
                received = int.from_bytes(payload[cursor.start : cursor.position], "little")
    except NonCanonical:
        return None
    return Fingerprint(tenant, value, received) if len(value) == FINGERPRINT_BYTES else None


def placeholder(payload: bytes) -> bytes:
    """Return the message that is stored in the place of a repetition: its last record, and the number of its items. The
    message must have a fingerprint. Raises NonCanonical."""
    cursor = Cursor(payload)
    whole: i64 = len(payload)
    items: i64 = 0
    start: i64 = 0
    end: i64 = 0
    while cursor.position < whole:
        if cursor.field(whole) == RECORD:
            start, end = cursor.start, cursor.position
            cursor.position = start
            while cursor.position < end:
                if cursor.field(end) == ITEM_COUNT:
                    items += cursor.value
    record = BytesWriter()
    record.write(payload[start:end])
    put_varint(record, REPEATED_ITEMS)
    put_varint(record, items)
    batch = BytesWriter()
    put_bytes(batch, RECORD, record.getvalue())
    return batch.getvalue()


def _end_of(message: memoryview) -> bytes:
    """Return the end of a message, with at least its last record. The large records at its beginning are not copied: most
    messages have one, and copying it takes ten times as long as reading the last."""
    whole = len(message)
    at = 0
    while whole - at >= _SKIPPED_BYTES_MIN:
        head = bytes(message[at : at + _HEAD_BYTES])
        cursor = Cursor(head)
        try:
            cursor.position = 1
            length = int(cursor.varint(_HEAD_BYTES))
        except NonCanonical:
            break
        following = at + int(cursor.position) + length
        if head[0] != RECORD or length < _SKIPPED_BYTES_MIN or following >= whole or message[following] != RECORD:
            break
        at = following
    return bytes(message[at:])


def _last_record(cursor: Cursor) -> tuple[i64, i64]:
    """Return where the last record starts and ends. Raises NonCanonical."""
    buffer = cursor.buffer
    end: i64 = len(buffer)
    at: i64 = 0
    start: i64 = 0
    last: i64 = 0
    # Reading the records with `Cursor.field` would take twice the time.
    while at + 1 < end and buffer[at] == RECORD:
        first: i64 = at + 1
        byte: i64 = buffer[first]
        length: i64 = byte & 127
        shift: i64 = 7
        while byte > 127 and first + 1 < end and shift < 28:
            first += 1
            byte = buffer[first]
            length |= (byte & 127) << shift
            shift += 7
        first += 1
        if byte > 127 or length > end - first:
            break
        start = first
        last = at = first + length
    cursor.position = at
    while cursor.position < end:
        if cursor.field(end) == RECORD:
            start, last = cursor.start, cursor.position
    return start, last
