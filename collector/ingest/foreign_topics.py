"""Topics that others write. Each message is an OTLP request, as the kafka exporter of OpenTelemetry's Collector writes it.

A message passes the same adapter and the same rules as an OTLP request over HTTP. It becomes one message of ours at the same
offset, or nothing. Rejected items become dead letters. No sender could send a refused message again, so a message that is
refused as a whole becomes a dead letter too, and the messages behind it are stored.

Invariants:
1. The result of a message depends only on the message, its place in the log, and the settings. So a range that is read again
   has the same payloads, rows and tokens, and its dead letters have the same ids
   (tests/unit/collector/ingest/test_foreign_topics.py, test_a_range_that_is_read_again_is_the_same).
2. No message stops the messages behind it, whatever it contains
   (test_what_can_not_be_read_is_a_dead_letter_and_stops_nothing, test_a_defect_is_a_dead_letter).
3. Two messages at different places have different batch ids (test_a_place_has_its_batch_id).
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

import structlog

from adapters.errors import (
    INTERNAL,
    INVALID_COMPRESSION,
    INVALID_RECORD,
    INVALID_TIMESTAMP,
    PAYLOAD_TOO_LARGE,
    RequestRefused,
)
from adapters.record import SOURCE_OTLP, Adapted, Header
from collector.broker.contract import TOPIC_ENCODINGS, Message, MessageContext, Range
from collector.ingest.otlp_inputs import OTLP_FORMS, OTLP_JSON, OTLP_PROTOBUF
from collector.ingest.produce import TOPICS
from collector.ingest.reading import Adapt, body_rules
from collector.ingest.receipts import unnumbered_record
from collector.ingest.validate import Limits
from collector.records.dead_letter import ENTRY_BYTES_MAX, Caps, DeadLetters, Origin
from collector.tenancy.keys_file import tenant_problem

ENCODINGS: Final[dict[str, dict[int, Adapt]]] = dict(zip(TOPIC_ENCODINGS, (OTLP_PROTOBUF, OTLP_JSON), strict=True))
"""The adapters of each encoding, by signal."""

_MS_NS: Final = 10**6
# The latest time that 63 bits of nanoseconds since the Unix epoch can hold, in 2262.
_TIMESTAMP_MS_MAX: Final = (2**63 - 1) // _MS_NS
# Dead letters are appended in chunks of at most this size, since the broker bounds the bytes that wait to be appended.
_APPENDED_BYTES_MAX: Final = 1 << 20

log = structlog.get_logger(__name__)


class ForeignTopic(NamedTuple):
    """A topic that others write. `signal` is one of adapters.record. `tenant` owns the messages that name no tenant."""

    name: str
    encoding: str
    signal: int
    tenant: str


class TopicLimits(NamedTuple):
    """The settings for each message. `caps` limit the dead letters of one message. A limit for a minute would depend on what
    else the process has read, so a writer that repeats a range would keep other dead letters."""

    limits: Limits
    caps: Caps
    message_bytes_max: int
    message_row_bytes_max: int
    dead_letter_bytes_max: int  # of one message of the dead letters' topic
    payload_bytes_max: int  # of the dead letter for a message that is refused as a whole


class TopicObserver(Protocol):
    """Receives the outcomes of messages; collector.telemetry.metrics.Metrics is one."""

    def ingested(self, adapted: Adapted, dead_letters: Mapping[int, int]) -> None:
        """Count the items of one message. `dead_letters` is the number of its rejected items that are kept, by reason."""


class AdaptedMessage(NamedTuple):
    """The outcome of one message."""

    payload: bytes  # a TelemetryBatch; empty if there is nothing to store
    letters: Sequence[Message]
    adapted: Adapted | None = None  # None if the message was refused, or empty
    by_reason: Mapping[int, int] = {}  # how many rejected items are kept


class AdaptedRange:
    """A range of messages that others wrote, as it is stored. `messages` has one message of ours for each of theirs."""

    def __init__(
        self,
        messages: Range,
        read: Sequence[AdaptedMessage],
        append: Callable[[Sequence[Message]], Awaitable[None]],
        observer: TopicObserver,
    ) -> None:
        self.messages: Final = messages
        self._read: Final = read
        self._append: Final = append
        self._observer: Final = observer

    async def keep(self, count: int) -> None:
        """Append the dead letters of the first `count` messages; return when they are durable. Raises BrokerError."""
        for letters in _chunks(letter for read in self._read[:count] for letter in read.letters):
            await self._append(letters)

    def stored(self, count: int) -> None:
        """Count the items of the first `count` messages, which are committed."""
        for read in self._read[:count]:
            if read.adapted is not None:
                self._observer.ingested(read.adapted, read.by_reason)


class ForeignTopics:
    """Reads all topics that others write. `adapt` blocks: run it in a thread."""

    def __init__(
        self,
        topics: Sequence[ForeignTopic],
        limits: TopicLimits,
        append: Callable[[Sequence[Message]], Awaitable[None]],
        observer: TopicObserver,
        *,
        tenant_header: str = "",
        now_unix_nano: Callable[[], int],
        pause: Callable[[], None],
    ) -> None:
        """`append` is the producer's. `tenant_header` is the name of the Kafka header whose value is the tenant; empty: no
        header names a tenant. `pause` is called from time to time while a message is read."""
        self._topics: Final = {topic.name: topic for topic in topics}
        self._limits: Final = limits
        self._append: Final = append
        self._observer: Final = observer
        self._tenant_header: Final = tenant_header
        self._now_unix_nano: Final = now_unix_nano
        self._pause: Final = pause

    def reads(self, topic: str) -> bool:
        """Return whether others write the topic."""
        return topic in self._topics

    def adapt(self, messages: Range) -> AdaptedRange:
        """Return a range of one of these topics in the form in which it is stored. Raises nothing."""
        topic = self._topics[messages.partition.topic]
        # The log's identity, without the two parts that differ between ranges: the last message's epoch, and the digest.
        identity = messages.log.rpartition(".")[0]
        read: list[AdaptedMessage] = []
        for context, payload in zip(messages.contexts, messages.payloads, strict=True):
            batch_id = batch_id_of(identity, topic.name, messages.partition.index, context)
            read.append(self._adapted(topic, batch_id, context, bytes(payload)))
        stored = messages._replace(payloads=[each.payload for each in read], contexts=(), topic=TOPICS[topic.signal])
        return AdaptedRange(stored, read, self._append, self._observer)

    def _adapted(self, topic: ForeignTopic, batch_id: bytes, context: MessageContext, body: bytes) -> AdaptedMessage:
        unread = context.unread
        if not body and unread is None:  # a tombstone, or a request without items
            return AdaptedMessage(b"", ())
        has_time = 0 < context.timestamp_ms <= _TIMESTAMP_MS_MAX
        received = context.timestamp_ms * _MS_NS if has_time else 0
        tenant, problem = self._tenant_of(topic, context)
        letters = DeadLetters(self._limits.caps, self._limits.dead_letter_bytes_max, self._limits.payload_bytes_max)
        origin = Origin(
            tenant,
            SOURCE_OTLP,
            f"kafka:{topic.name}",
            received,
            batch_id,
            OTLP_FORMS[topic.signal],
            self._now_unix_nano(),
        )
        try:
            if unread is not None:
                raise RequestRefused(PAYLOAD_TOO_LARGE if unread.is_too_large else INVALID_COMPRESSION, unread.why)
            if problem:
                raise RequestRefused(INVALID_RECORD, problem)
            if not has_time:
                raise RequestRefused(
                    INVALID_TIMESTAMP,
                    f"the message's timestamp, {context.timestamp_ms}, is not a time in milliseconds between 1970 and 2262",
                )
            return self._read(topic, letters, origin, body)
        except RequestRefused as refused:
            reason, message = refused.reason, refused.message
        except Exception as defect:
            log.exception(
                "a defect of the collector: a message is kept as a dead letter", topic=topic.name, offset=context.offset
            )
            reason, message = INTERNAL, f"a defect of the collector: {defect!r}"
        size_bytes = len(body) if unread is None else unread.size_bytes
        return AdaptedMessage(b"", letters.of_request(origin, reason, message, body, size_bytes))

    def _read(self, topic: ForeignTopic, letters: DeadLetters, origin: Origin, body: bytes) -> AdaptedMessage:
        """Adapt the body of one message. Raises RequestRefused."""
        given = self._limits
        received = origin.received_time_unix_nano
        budget = letters.budget(origin.tenant, received)
        window = given.limits.window_of(origin.payload_form, origin.tenant)
        rules = body_rules(given.limits, received, letters, budget, given.message_row_bytes_max, window, self._pause)
        header = Header(origin.tenant, SOURCE_OTLP, received, origin.batch_id)
        adapt = ENCODINGS[topic.encoding][topic.signal]
        adapted = adapt(body, header, rules, given.message_bytes_max - ENTRY_BYTES_MAX)
        if adapted.rejected:
            letters.check(budget, adapted, received)
        elif not adapted.accepted_count():
            if adapted.unknown_fields:
                raise RequestRefused(INVALID_RECORD, f"nothing was taken of it: {'; '.join(adapted.unknown_fields)}")
            return AdaptedMessage(b"", (), adapted)
        kept = letters.make(origin, adapted)
        receipt = unnumbered_record(header, origin.route.encode(), adapted, kept.items)
        payload = b"".join([*(part.payload for part in adapted.parts), receipt])
        return AdaptedMessage(payload, kept.messages, adapted, kept.by_reason)

    def _tenant_of(self, topic: ForeignTopic, context: MessageContext) -> tuple[str, str]:
        """Return the tenant of a message, and what is wrong with the name in its tenant header; empty if nothing is."""
        if self._tenant_header:
            for name, value in context.headers:
                if name.lower() == self._tenant_header.lower():
                    try:
                        tenant = value.decode()
                        problem = tenant_problem(tenant)
                    except UnicodeDecodeError:
                        problem = "it is not UTF-8"
                    if problem is None:
                        return tenant, ""
                    return topic.tenant, f"its header {name} names no tenant: {problem}"
        return topic.tenant, ""


def batch_id_of(identity: str, topic: str, partition: int, context: MessageContext) -> bytes:
    """Return the batch id of a message, 16 bytes: its time, in the form of a UUID of version 7, and a hash of its place. The
    UUID's version is 8 (RFC 9562), which shows an audit that no gateway made the batch.

    `identity` is the cluster's and the topic's. The place includes the leader epoch, since Kafka uses offsets again after it
    has lost the end of a log."""
    place = f"{identity}/{topic}".encode() + b"".join(
        number.to_bytes(8, "big", signed=True) for number in (partition, context.leader_epoch, context.offset)
    )
    milliseconds = min(max(0, context.timestamp_ms), 2**48 - 1)
    id_ = bytearray(
        milliseconds.to_bytes(6, "big") + blake2b(place, digest_size=10, person=b"message", salt=b"infrasage").digest()
    )
    id_[6] = id_[6] & 0x0F | 0x80
    id_[8] = id_[8] & 0x3F | 0x80
    return bytes(id_)


def _chunks(letters: Iterator[Message]) -> Iterator[Sequence[Message]]:
    chunk: list[Message] = []
    size = 0
    for letter in letters:
        if chunk and size + len(letter.payload) > _APPENDED_BYTES_MAX:
            yield chunk
            chunk, size = [], 0
        chunk.append(letter)
        size += len(letter.payload)
    if chunk:
        yield chunk
