"""Dead letters: one entry for each item that was received and can't be stored; and how many a tenant may have kept.

An entry's id is made of the item's position, so an item that is kept twice is one entry. An attack of invalid data fills
neither the log nor the store. Past a tenant's cap a request is refused until the next minute (docs/adr/0033), so that nothing
that was acknowledged is lost without a word.
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

# What a message needs beside the record of a dead letter, at most. Records leave as much room, so that each can become one.
ENTRY_BYTES_MAX: Final = 4096
# Of a request that is refused as a whole, unless the settings say otherwise.
PAYLOAD_BYTES_MAX: Final = 64 << 10
# A tenant may have so many bytes kept so in a minute, and then this much of each further request. Few KB of gzip become 64 KiB,
# which log, writer and store all hold: 100 a second took 150 MiB.
_REQUESTS_BYTES_PER_MINUTE: Final = 2 << 20
_FURTHER_BYTES_MAX: Final = 1 << 10
# Of each text that others have written.
TEXT_BYTES_MAX: Final = 1000

_MINUTE_NS: Final = 60 * 10**9


def item_id(batch_id: bytes, item_index: int) -> bytes:
    """The id of a gateway's dead letter, 16 bytes: the item's place in its request."""
    return _id(b"item", batch_id, item_index)


def request_id(batch_id: bytes) -> bytes:
    """The id of the dead letter of a request that was refused as a whole, 16 bytes."""
    return _id(b"request", batch_id)


def record_id(log: str, topic: str, partition: int, offset: int, *path: int) -> bytes:
    """The id of a writer's dead letter, 16 bytes: its place in the broker. `log`: the identity of the log, as Range has it.
    `path`: the record's number in its message, and then, where the record was divided, the item's in the record."""
    place = f"{log}/{topic}" if log else topic
    return _id(b"record", place.encode(), partition, offset, *path)


def replay_batch_id(dead_letter_id: bytes) -> bytes:
    """The batch id of the record that a replay makes of a dead letter, 16 bytes: at each replay the same."""
    return _id(b"replay", dead_letter_id)


def _id(kind: bytes, place: bytes, *numbers: int) -> bytes:
    """A UUID of version 8 (RFC 9562): a hash."""
    whole = place + b"".join(number.to_bytes(8, "big") for number in numbers)
    digest = bytearray(blake2b(whole, digest_size=16, person=kind, salt=b"infrasage").digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def text(text_: str | bytes) -> str:
    """Text of others as protobuf takes it: no longer than TEXT_BYTES_MAX, and valid."""
    whole = text_.encode(errors="replace") if isinstance(text_, str) else text_
    return whole[:TEXT_BYTES_MAX].decode(errors="ignore" if len(whole) > TEXT_BYTES_MAX else "replace")


def messages(records: Iterable[DeadLetterRecord], message_bytes_max: int, *, ordered: bool = False) -> list[Message]:
    """As few messages as will do. Of a payload that is too long for any, the beginning is kept, and its length.

    Events that bring a record (replays) are to be `ordered`: the writer relies on their sequence.
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
    """Messages that tell the writer what became of entries; of replays, with the record to store."""
    return messages((DeadLetterRecord(event=event) for event in events), message_bytes_max, ordered=True)


class Caps(NamedTuple):
    """What a tenant may have kept in a minute, by each process."""

    items_per_minute_max: int
    bytes_per_minute_max: int  # of the items themselves


class Budget(NamedTuple):
    """What is left of a tenant's caps."""

    items: int
    size_bytes: int


NO_BUDGET: Final = Budget(0, 0)


class DeadLettersFull(Exception):
    """The rejected items of a request do not fit what is left of the tenant's caps: nothing of it is kept. Retryable."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s: Final = retry_after_s


class Origin(NamedTuple):
    """Which request the items came in."""

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
    """The gateway's: of what adapters reject. One event loop's: no locks.

    Minutes are the clock's own, and caps begin anew with each; what is remembered is one pair of numbers for each tenant that
    had items rejected in this minute. What a request took of its caps stays taken if it could not be kept.
    """

    def __init__(self, caps: Caps, message_bytes_max: int, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        """`payload_bytes_max`: of the body of a request that is refused as a whole, and of an item that no message holds."""
        self._whole: Final = Budget(caps.items_per_minute_max, caps.bytes_per_minute_max)
        self.payload_bytes_max: Final = min(payload_bytes_max, message_bytes_max - ENTRY_BYTES_MAX)
        self._message_bytes_max: Final = message_bytes_max
        self._minute = 0
        self._used: Final[dict[str, Budget]] = {}
        self._of_requests: Final[dict[str, int]] = {}  # bytes of requests that were refused as a whole, by tenant

    def budget(self, tenant: str, now_unix_nano: int) -> Budget:
        """Return how many rejected items, and bytes of them, may be kept of a request that arrives now."""
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
        """Raise DeadLettersFull where a rejected item was not kept that the next minute has room for. An item that no minute
        has room for is noted in `adapted`. `budget`: what was left when the request came."""
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
        """Take the rejected items that have a payload from the tenant's caps. Call it only where there is such an item."""
        used = self._used.get(tenant, NO_BUDGET)
        self._used[tenant] = Budget(used.items + adapted.dead_letter_items, used.size_bytes + adapted.dead_letter_bytes)

    def of_request(self, origin: Origin, reason: int, message: str, body: bytes, whole_bytes: int) -> list[Message]:
        """Return what is to be appended of a request that was refused as a whole, and take it from the tenant's caps; nothing
        where these have no room for it. `whole_bytes`: of the body, of which only the beginning may be there."""
        tenant = origin.tenant
        budget = self.budget(tenant, origin.received_time_unix_nano)
        of_requests = self._of_requests.get(tenant, 0)
        payload_bytes_max = self.payload_bytes_max
        if of_requests >= _REQUESTS_BYTES_PER_MINUTE:
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
        """Return what is to be appended of the rejected items: those that have a payload. Any thread may call this."""
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
