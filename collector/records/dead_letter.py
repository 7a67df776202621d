"""Dead letters: one entry for each item that was received and can't be stored, and the caps on how many a tenant may have.

An entry's id is made of the item's position, so an item that is kept twice is one entry. An attack of invalid data fills
neither the log nor the store. Beyond a tenant's cap a request is refused until the next minute (docs/adr/0033), so that no
acknowledged item is lost silently.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_REQUEST,
    DeadLetter,
    DeadLetterBatch,
    DeadLetterEvent,
    DeadLetterRecord,
    PayloadForm,
)

from adapters.errors import REASON
from adapters.record import Adapted
from collector.broker.contract import DEAD_LETTERS_TOPIC, Message

# The most bytes that a message needs in addition to a dead letter's payload. Records leave this room, so that each can become a
# dead letter.
ENTRY_BYTES_MAX: Final = 4096
# The most bytes kept of a request that is refused as a whole, unless the settings have another limit.
PAYLOAD_BYTES_MAX: Final = 64 << 10
# The most bytes kept of each such request after those of its tenant have reached Caps.requests_bytes_per_minute_max.
_FURTHER_BYTES_MAX: Final = 1 << 10
# The most bytes of each text that others have written.
TEXT_BYTES_MAX: Final = 1000

_MINUTE_NS: Final = 60 * 10**9


def item_id(batch_id: bytes, item_index: int) -> bytes:
    """Return the id of a gateway's dead letter, 16 bytes, by the item's place in its request."""
    return _id(b"item", batch_id, item_index)


def request_id(batch_id: bytes) -> bytes:
    """Return the id of the dead letter of a request that was refused as a whole, 16 bytes."""
    return _id(b"request", batch_id)


def record_id(log: str, topic: str, partition: int, offset: int, *path: int) -> bytes:
    """Return the id of a writer's dead letter, 16 bytes, by its place in the broker. `log` is the identity of the log, as in
    Range. `path` is the record's number in its message, and, if the record was divided, the item's number in the record."""
    place = f"{log}/{topic}" if log else topic
    return _id(b"record", place.encode(), partition, offset, *path)


def replay_batch_id(dead_letter_id: bytes) -> bytes:
    """Return the batch id of the record that a replay makes of a dead letter, 16 bytes. Each replay has the same id."""
    return _id(b"replay", dead_letter_id)


def _id(kind: bytes, place: bytes, *numbers: int) -> bytes:
    """Return a hash as a UUID of version 8 (RFC 9562)."""
    whole = place + b"".join(number.to_bytes(8, "big") for number in numbers)
    digest = bytearray(blake2b(whole, digest_size=16, person=kind, salt=b"infrasage").digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def text(text_: str | bytes) -> str:
    """Return a text of others in a form that protobuf accepts: valid, and no longer than TEXT_BYTES_MAX."""
    whole = text_.encode(errors="replace") if isinstance(text_, str) else text_
    return whole[:TEXT_BYTES_MAX].decode(errors="ignore" if len(whole) > TEXT_BYTES_MAX else "replace")


def messages(records: Iterable[DeadLetterRecord], message_bytes_max: int, *, ordered: bool = False) -> list[Message]:
    """Pack the records into few messages. If a payload is too long for a message, its beginning and its length are kept.

    Events with a record (replays) must be `ordered`, because the writer relies on their sequence.
    """
    out: list[Message] = []
    parts: list[bytes] = []
    size = 0
    for record in records:
        part = DeadLetterBatch(records=[record]).SerializeToString()
        if len(part) > message_bytes_max and record.HasField("letter"):
            room = max(0, min(PAYLOAD_BYTES_MAX, message_bytes_max - ENTRY_BYTES_MAX))
            record.letter.payload = record.letter.payload[:room]
            if not room:
                record.letter.ClearField("payload_form")
            part = DeadLetterBatch(records=[record]).SerializeToString()
        if parts and size + len(part) > message_bytes_max:
            out.append(Message(DEAD_LETTERS_TOPIC, b"".join(parts), ordered))
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        out.append(Message(DEAD_LETTERS_TOPIC, b"".join(parts), ordered))
    return out


def event_messages(events: Iterable[DeadLetterEvent], message_bytes_max: int) -> list[Message]:
    """Return messages that report the outcomes of entries to the writer. An event of a replay has the record to store."""
    return messages((DeadLetterRecord(event=event) for event in events), message_bytes_max, ordered=True)


class Caps(NamedTuple):
    """The most dead letters that each process keeps of a tenant in a minute."""

    items_per_minute_max: int
    bytes_per_minute_max: int  # of the items themselves
    # Of requests that are refused as a whole. A few KB of gzip become 64 KiB, which log, writer and store all hold: 100 such
    # requests a second took 150 MiB.
    requests_bytes_per_minute_max: int = 2 << 20


class Budget(NamedTuple):
    """The unused part of a tenant's caps."""

    items: int
    size_bytes: int


NO_BUDGET: Final = Budget(0, 0)


class DeadLettersFull(Exception):
    """The rejected items of a request exceed the unused part of the tenant's caps: nothing of it is kept. Retryable."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s: Final = retry_after_s


class Origin(NamedTuple):
    """The request that contained the items."""

    tenant: str
    source: int
    route: str
    received_time_unix_nano: int
    batch_id: bytes
    payload_form: PayloadForm
    kept_later_unix_nano: int = 0  # when they were kept, if not when the request was received

    @property
    def kept_time_unix_nano(self) -> int:
        return self.kept_later_unix_nano or self.received_time_unix_nano


class Kept(NamedTuple):
    """The dead letters of one request, not appended yet."""

    messages: list[Message]
    items: int
    by_reason: Mapping[int, int]


NOTHING_KEPT: Final = Kept([], 0, {})


class DeadLetters:
    """Makes the gateway's dead letters, of items that adapters reject. Used by one event loop, so it has no locks.

    Caps are reset at each minute of the clock. At most three numbers are remembered for each tenant that had items rejected in
    this minute. The part of the caps that a request used stays used if the request could not be kept.
    """

    def __init__(self, caps: Caps, message_bytes_max: int, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        """`payload_bytes_max` limits the body of a request that is refused as a whole, and an item that fits no message."""
        self._whole: Final = Budget(caps.items_per_minute_max, caps.bytes_per_minute_max)
        self.payload_bytes_max: Final = min(payload_bytes_max, message_bytes_max - ENTRY_BYTES_MAX)
        self._message_bytes_max: Final = message_bytes_max
        self._requests_bytes_max: Final = caps.requests_bytes_per_minute_max
        self._minute = 0
        self._used: Final[dict[str, Budget]] = {}
        self._of_requests: Final[dict[str, int]] = {}  # bytes of requests that were refused as a whole, by tenant

    def budget(self, tenant: str, now_unix_nano: int) -> Budget:
        """Return how many rejected items of a request that arrives now may be kept, and how many bytes of them."""
        minute = now_unix_nano // _MINUTE_NS
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
            self._of_requests.clear()
        used = self._used.get(tenant)
        whole = self._whole
        if used is None:
            return whole
        return Budget(whole.items - used.items, whole.size_bytes - used.size_bytes)

    def check(self, budget: Budget, adapted: Adapted, now_unix_nano: int) -> None:
        """Raise DeadLettersFull if a rejected item was not kept for which the next minute has room. An item for which no minute
        has room is noted in `adapted`. `budget` is what was left when the request came."""
        lost = adapted.rejected_count() - adapted.dead_letter_items
        whole = self._whole
        if lost <= 0 or not whole.items or not whole.size_bytes:
            return
        if budget == whole:
            adapted.not_kept = lost
            return
        first = adapted.rejections[0]  # always kept, whatever has room
        raise DeadLettersFull(
            f"{lost} of {adapted.rejected_count()} items would be rejected and could not be kept as dead letters: of this"
            f" minute's {whole.items} items and {whole.size_bytes} bytes, {budget.items} and {budget.size_bytes} were left."
            " Send again later, or raise dead_letters.items_per_minute_max and dead_letters.bytes_per_minute_max."
            f" The first of the rejected is {REASON[first.reason].name}: {first.message}",
            (_MINUTE_NS - now_unix_nano % _MINUTE_NS) / 10**9,
        )

    def count(self, tenant: str, adapted: Adapted) -> None:
        """Take the rejected items that have a payload from the tenant's caps. Call it only if there is such an item."""
        used = self._used.get(tenant, NO_BUDGET)
        self._used[tenant] = Budget(used.items + adapted.dead_letter_items, used.size_bytes + adapted.dead_letter_bytes)

    def of_request(self, origin: Origin, reason: int, message: str, body: bytes, whole_bytes: int) -> list[Message]:
        """Return the messages to append for a request that was refused as a whole, and take it from the tenant's caps. If these
        have no room, return no message. `whole_bytes` is the size of the whole body; `body` may be only its beginning."""
        tenant = origin.tenant
        budget = self.budget(tenant, origin.received_time_unix_nano)
        of_requests = self._of_requests.get(tenant, 0)
        payload_bytes_max = self.payload_bytes_max
        if of_requests >= self._requests_bytes_max:
            payload_bytes_max = min(payload_bytes_max, _FURTHER_BYTES_MAX)
        size_bytes = min(len(body), payload_bytes_max)
        if budget.items < 1 or budget.size_bytes < size_bytes or not body:
            return []
        used = self._used.get(tenant, NO_BUDGET)
        self._used[tenant] = Budget(used.items + 1, used.size_bytes + size_bytes)
        self._of_requests[tenant] = of_requests + size_bytes
        letter = DeadLetter(
            id=request_id(origin.batch_id),
            tenant_id=tenant,
            received_time_unix_nano=origin.received_time_unix_nano,
            kept_time_unix_nano=origin.kept_time_unix_nano,
            source=origin.source,  # type: ignore[arg-type]  # a number of the same enumeration
            route=origin.route,
            reason=REASON[reason].name,
            message=text(message),
            batch_id=origin.batch_id,
            payload=body[:size_bytes],
            payload_form=PAYLOAD_FORM_REQUEST,
            payload_size_bytes=whole_bytes,
        )
        return messages([DeadLetterRecord(letter=letter)], self._message_bytes_max)

    def make(self, origin: Origin, adapted: Adapted) -> Kept:
        """Return the dead letters of the rejected items that have a payload. Any thread may call this."""
        if not adapted.dead_letter_items:
            return NOTHING_KEPT
        by_reason: Counter[int] = Counter(rejection.reason for rejection in adapted.rejections if rejection.payload)
        return Kept(messages(_entries(origin, adapted), self._message_bytes_max), adapted.dead_letter_items, by_reason)


def _entries(origin: Origin, adapted: Adapted) -> Iterator[DeadLetterRecord]:
    for rejection in adapted.rejections:
        if rejection.payload:
            yield DeadLetterRecord(
                letter=DeadLetter(
                    id=item_id(origin.batch_id, rejection.index),
                    tenant_id=origin.tenant,
                    received_time_unix_nano=origin.received_time_unix_nano,
                    kept_time_unix_nano=origin.kept_time_unix_nano,
                    source=origin.source,  # type: ignore[arg-type]  # a number of the same enumeration
                    type=rejection.type,  # type: ignore[arg-type]  # as above
                    route=origin.route,
                    reason=REASON[rejection.reason].name,
                    message=text(rejection.message),
                    service_id=text(rejection.service_id),
                    batch_id=origin.batch_id,
                    item_index=rejection.index,
                    item_count=1,
                    payload=rejection.payload,
                    payload_form=origin.payload_form,
                    payload_size_bytes=rejection.payload_bytes,
                )
            )
