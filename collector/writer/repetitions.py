"""Decide which messages of a range are repetitions, and are left out of its insert.

The writer decides before it intends a range, and the intent keeps the decision. So a range in doubt is repeated with the same
bytes, whatever memory and store contain by then. docs/internals/exactly-once.md and ADR 41 have the argument.

Invariants:
1. A message is left out only if it has a predecessor: a message with its tenant and fingerprint, received at most the window
   before or after it, that is in the store, or before it in the same insert (test_repetitions.py,
   test_each_request_is_stored_once). If the predecessor is lost before it is stored, the message is no longer left out
   (test_what_was_left_out_for_a_message_that_is_lost_is_stored), even if the predecessor's row is stored without its items
   (test_a_row_whose_items_are_lost_makes_nothing_a_repetition).
2. A message that has a predecessor is left out, as long as the predecessor is in the same partition, or is stored already
   (the same).
3. Memory only saves look-ups: forgotten fingerprints are looked up in the store (test_memory_only_saves_look_ups).
4. A message that is left out keeps its place in the range: offsets and the tree of pieces stay as they are
   (test_refused_neighbours_of_what_is_left_out_keep_their_places).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from adapters.codec.wire import NonCanonical
from adapters.fingerprint import Fingerprint, placeholder, read_fingerprint
from collector.broker.contract import DEAD_LETTERS_TOPIC, Partition, Payload, Range
from collector.broker.left_out import LEFT_OUT_INDEX_MAX, bitmap, indexes
from collector.store.payload_index import Contents, CopyKey, MessageKey, contents
from collector.writer.fingerprint_memory import FingerprintMemory

_SECOND_NS: Final = 10**9
_TIME_MAX: Final = 2**63 - 1


class Copies(Protocol):
    """The look-ups in the store."""

    def copies(
        self, topic: str, asked: Mapping[CopyKey, int], besides: Collection[MessageKey], since_ns: int, until_ns: int
    ) -> dict[CopyKey, list[int]]:
        """Return when copies were received, by key (collector.store.contract.Store)."""


class RepetitionObserver(Protocol):
    """Is notified of repetitions; collector.telemetry.metrics.Metrics is one."""

    def left_out(self, topic: str, messages: int) -> None:
        """Count messages of a range that were repetitions, and are not stored."""

    def looked_up(self, fingerprints: int) -> None:
        """Count fingerprints that were looked up in the store, since memory does not reach back through the window."""


class _Decided(NamedTuple):
    """Keeps the fingerprints of the last decided range of a partition."""

    start: int
    prints: Sequence[Fingerprint | None]  # by message


class _Known(NamedTuple):
    """States that memory has the messages of a partition from some message up to `end`. Messages before it were received at
    about `since_unix_nano`, or earlier."""

    log: str
    end: int
    since_unix_nano: int


class Repetitions:
    """Decides which messages one writer leaves out. Calls block: run them in the writer's thread."""

    def __init__(self, store: Copies, window_s: int, keys_max: int, observer: RepetitionObserver) -> None:
        """A `window_s` of 0 recognizes no repetition. At most `keys_max` fingerprints are kept in memory."""
        self._store: Final = store
        self._window_ns: Final = window_s * _SECOND_NS
        self._observer: Final = observer
        self._memory: Final = FingerprintMemory(keys_max, self._window_ns)
        self._decided: Final[dict[Partition, _Decided]] = {}
        self._known: Final[dict[Partition, _Known]] = {}

    def decide(self, messages: Range) -> Range:
        """Return a range that is not intended yet, without its repetitions; perhaps only its first messages. Raises
        StoreError if a look-up fails."""
        if not self._decides(messages):
            return messages
        prints = [read_fingerprint(payload) for payload in messages.payloads]
        self._decided[messages.partition] = _Decided(messages.start, prints)
        stored = self._look_up(messages, prints)
        here: dict[CopyKey, int] = {}
        repeated: list[int] = []
        for index, print_ in enumerate(prints):
            if print_ is None:
                continue
            pair = print_.tenant, print_.value
            received = print_.received_time_unix_nano
            last = here.get(pair)
            if last is None:
                last = self._memory.last(*pair)
            times = [*stored.get(pair, ()), last] if last >= 0 else stored.get(pair, ())
            # Memory has whole seconds.
            if times and any(abs(received - time) <= self._window_ns + _SECOND_NS for time in times):
                repeated.append(index)
            here[pair] = received
        return _without(messages, repeated) if repeated else messages

    def reinstated(self, messages: Range) -> Range:
        """Return a range in doubt in which a message is no longer left out if its predecessor is lost: it is damaged or
        deleted, and its items are not in the store either. Its row proves nothing: an insert that broke off may have written
        the row alone. Raises StoreError."""
        if not self._window_ns or not messages.left_out:
            return messages
        left_out = set(indexes(messages.left_out))
        here: set[CopyKey] = set()
        not_stored: dict[int, CopyKey] = {}
        asked: dict[CopyKey, int] = {}
        received: list[int] = []
        besides: set[MessageKey] = set()
        for index, payload in enumerate(messages.payloads):
            print_ = read_fingerprint(payload)
            content = _contents(bytes(payload)) if index in left_out else None
            if content is not None:
                besides |= content.receipts
            if print_ is None or (pair := (print_.tenant, print_.value)) in here:
                continue
            here.add(pair)
            if content is not None:
                not_stored[index] = pair
                asked[pair] = sum(content.items.values())
                received.append(print_.received_time_unix_nano)
        if not not_stored:
            return messages
        window_ns = self._window_ns + _SECOND_NS
        since, until = max(0, min(received) - window_ns), min(_TIME_MAX, max(received) + window_ns)
        stored = self._store.copies(messages.stored_as, asked, besides, since, until)
        lost = {index for index, pair in not_stored.items() if pair not in stored}
        return messages._replace(left_out=bitmap(left_out - lost))

    def committed(self, messages: Range) -> None:
        """Remember the messages of a stored range. Raises nothing."""
        if not self._decides(messages):
            return
        partition = messages.partition
        decided = self._decided.pop(partition, None)
        if messages.in_doubt or decided is None or decided.start != messages.start:
            # A stand-in has the fingerprint of its message.
            prints: Sequence[Fingerprint | None] = [read_fingerprint(payload) for payload in messages.payloads]
        else:
            prints = decided.prints[: len(messages.payloads)]
        newest = -1
        for print_ in prints:
            if print_ is not None:
                newest = max(newest, print_.received_time_unix_nano)
                self._memory.add(print_.tenant, print_.value, print_.received_time_unix_nano)
        known = self._known_before(messages)
        if known is not None:
            self._known[partition] = known._replace(end=messages.end)
        elif newest >= 0:
            self._known[partition] = _Known(_log_of(messages), messages.end, newest)
        if messages.left_out:
            self._observer.left_out(partition.topic, sum(1 for _ in indexes(messages.left_out)))

    def _decides(self, messages: Range) -> bool:
        # If the offsets have gaps, the index of a message does not determine its offset.
        is_contiguous = messages.end - messages.start == len(messages.payloads)
        return bool(self._window_ns) and messages.partition.topic != DEAD_LETTERS_TOPIC and is_contiguous

    def _look_up(self, messages: Range, prints: Sequence[Fingerprint | None]) -> dict[CopyKey, list[int]]:
        """Look up in the store the fingerprints that memory may lack. A row without items is no predecessor: an insert broke
        off, and its message was lost before it was completed. Raises StoreError."""
        received = [print_.received_time_unix_nano for print_ in prints if print_ is not None]
        if not received:
            return {}
        known = self._known_before(messages)
        oldest = min(received)
        if known is not None:
            since = max(known.since_unix_nano, self._memory.forgotten_until_unix_nano)
            # The window is subtracted twice, since clocks of gateways may differ by as much.
            if oldest - 2 * self._window_ns > since:
                return {}
        asked = _FewestItems(
            {
                (print_.tenant, print_.value): payload
                for print_, payload in zip(prints, messages.payloads, strict=True)
                if print_ is not None and self._memory.last(print_.tenant, print_.value) < 0
            }
        )
        if not asked:
            return {}
        self._observer.looked_up(len(asked))
        since = max(0, oldest - self._window_ns - _SECOND_NS)
        until = min(_TIME_MAX, max(received) + self._window_ns + _SECOND_NS)
        return self._store.copies(messages.stored_as, asked, (), since, until)

    def _known_before(self, messages: Range) -> _Known | None:
        known = self._known.get(messages.partition)
        return known if known is not None and known.end == messages.start and known.log == _log_of(messages) else None


def _log_of(messages: Range) -> str:
    """Return the identity of the log without the part that differs from range to range."""
    return messages.log.rpartition(".")[0]


def _without(messages: Range, repeated: Sequence[int]) -> Range:
    """Leave the `repeated` messages out. End the range before the first of them whose index an intent cannot contain."""
    beyond = next((index for index in repeated if index >= LEFT_OUT_INDEX_MAX), None)
    if beyond is not None:
        messages = messages._replace(end=messages.start + beyond, payloads=messages.payloads[:beyond])
    left_out = bitmap(index for index in repeated if index < len(messages.payloads))
    return replaced(messages._replace(left_out=left_out))


def replaced(messages: Range) -> Range:
    """Replace the messages that are left out by stand-ins. A range in doubt was inserted with the same stand-ins before."""
    if not messages.left_out:
        return messages
    payloads: list[Payload] = list(messages.payloads)
    for index in indexes(messages.left_out):
        if index < len(payloads):
            payloads[index] = _placeholder(bytes(payloads[index]))
    return messages._replace(payloads=payloads)


class _FewestItems(Mapping[CopyKey, int]):
    """Maps messages to the fewest items of a copy that must be stored: one, since the store may have refused others, or none if
    the message has none. They are counted when they are asked for, which is only if the store has a copy: counting takes
    longer than anything else here."""

    def __init__(self, payloads: Mapping[CopyKey, Payload]) -> None:
        self._payloads: Final = payloads

    def __getitem__(self, key: CopyKey) -> int:
        return min(1, _item_count(bytes(self._payloads[key])))

    def __contains__(self, key: object) -> bool:
        return key in self._payloads

    def __iter__(self) -> Iterator[CopyKey]:
        return iter(self._payloads)

    def __len__(self) -> int:
        return len(self._payloads)


def _item_count(payload: bytes) -> int:
    content = _contents(payload)
    return 0 if content is None else sum(content.items.values())


def _contents(payload: bytes) -> Contents | None:
    """Return the contents of a message; None if it is no message of ours, even if it has a fingerprint."""
    try:
        return contents(payload)
    except ValueError:
        return None


def _placeholder(payload: bytes) -> bytes:
    try:
        return placeholder(payload) if payload else payload  # empty: it was damaged after the intent
    except NonCanonical:
        return b""
