"""Convert remote write's exemplars to OTLP's.

The labels trace_id and span_id become the ids if they are ids in hex, and are left out if they are only zeros. The other
labels, and ids of another form, become filtered attributes; the last value of a repeated name counts. An exemplar belongs to
the item of its series that is nearest in time, and to the first of several nearest items.

An exemplar's time is kept if the record can hold it, and left out otherwise. It is no reason to reject anything.
"""

from bisect import bisect_left
from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64

from adapters.checked_attributes import CheckedAttributes
from adapters.codec.text import hex_id, is_no_id
from adapters.codec.wire import Cursor, NonCanonical, put_bytes
from adapters.prometheus.series import Label
from adapters.rules import ENTRY_WORK_BYTES, Rules

# The labels trace_id and span_id may become ids, which are not attributes.
_IDS: Final = 2
MILLISECONDS_MAX: Final = 9_223_372_036_854
NANOSECONDS_A_MILLISECOND: Final = 1_000_000


class Exemplar:
    """An `Exemplar` was sent at start:end of the body. Its payload is an opentelemetry.proto.metrics.v1.Exemplar."""

    def __init__(self, start: i64, end: i64) -> None:
        self.start: i64 = start
        self.end: i64 = end
        # Why it can't be accepted, or 0. The message is set if the rules have none for the reason.
        self.reason: i64 = 0
        self.message: str = ""
        self.time_ms: i64 = 0
        self.payload: bytes = b""
        # Its repairs, by kind. They are counted if it is stored.
        self.repairs: dict[int, int] | None = None


def read_exemplar(cursor: Cursor, start: i64, end: i64, rules: Rules) -> Exemplar:
    """Return the Exemplar of remote write 1.0 at start:end. Moves the cursor. Raises NonCanonical."""
    label = Label()
    attributes: dict[bytes, bytes] = {}
    attributes_max: i64 = rules.attributes_max
    value_bits: i64 = 0
    time_ms: i64 = 0
    position: i64 = start
    rules.read(ENTRY_WORK_BYTES)
    while position < end:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        rules.read(0)
        if tag == 0x0A:
            if rules.truncates_values:
                label.read(cursor, cursor.start, position)
                rules.read(position - cursor.start)
            else:
                label.read(cursor, cursor.start, position, rules.key_bytes_max, rules.value_bytes_max)
            # Attributes beyond the limit do not change the result.
            if len(attributes) <= attributes_max + _IDS:
                set_label(attributes, label.name, label.value)
        elif tag == 0x11:
            value_bits = read_i64_le(cursor.buffer, cursor.start)
        elif tag == 0x18:
            time_ms = cursor.value
        elif tag >> 3 <= 3:
            raise NonCanonical(cursor.start)
    return make_exemplar(start, end, attributes, value_bits, time_ms, rules)


def set_label(attributes: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Set a label. The last label of a repeated name counts, in its own place. A label without a value is ignored."""
    if value:
        attributes.pop(name, None)
        attributes[name] = value


def make_exemplar(
    start: i64, end: i64, attributes: dict[bytes, bytes], value_bits: i64, time_ms: i64, rules: Rules
) -> Exemplar:
    """Return the exemplar at start:end with these attributes. The ids are removed from `attributes`."""
    exemplar = Exemplar(start, end)
    exemplar.time_ms = time_ms
    trace_id = b""
    span_id = b""
    sent = attributes.get(b"trace_id")
    if sent is not None:
        trace_id = _id_of(sent, 16)
        if trace_id or is_no_id(sent):
            del attributes[b"trace_id"]
    sent = attributes.get(b"span_id")
    if sent is not None:
        span_id = _id_of(sent, 8)
        if span_id or is_no_id(sent):
            del attributes[b"span_id"]

    writer = BytesWriter()
    if 0 < time_ms <= MILLISECONDS_MAX:
        writer.append(0x11)
        write_i64_le(writer, time_ms * NANOSECONDS_A_MILLISECOND)
    writer.append(0x19)
    write_i64_le(writer, value_bits)
    if span_id:
        put_bytes(writer, 0x22, span_id)
    if trace_id:
        put_bytes(writer, 0x2A, trace_id)
    exemplar.reason = rules.check_attribute_count(len(attributes))
    if attributes and exemplar.reason == 0:  # the payload of an exemplar with a reason is not used
        written = CheckedAttributes(rules)
        written.begin(writer, 0x3A)
        for key, value in attributes.items():
            if exemplar.reason == 0:
                exemplar.reason = written.put(key, value)
        written.end()
        exemplar.repairs = rules.take_pending()
    exemplar.payload = writer.getvalue()
    return exemplar


def _id_of(text: bytes, size: int) -> bytes:
    """Return the id in a label's value, which is UTF-8, as `hex_id` does. A longer text is not decoded: it may have 60 MB."""
    return hex_id(text.decode(), size) if len(text) == 2 * size else b""


def assign_exemplars(exemplars: list[Exemplar], firsts: dict[int, int], rules: Rules) -> dict[int, list[Exemplar]]:
    """Return the exemplars of each item that has some, by the item's number.

    `firsts` has for each time of an item, in milliseconds, the number of the first item of that time. It is not empty.
    """
    shares: dict[int, list[Exemplar]] = {}
    moments = sorted(firsts)
    for exemplar in exemplars:
        rules.read(0)
        time_ms: int = exemplar.time_ms
        at = bisect_left(moments, time_ms)
        later = moments[min(at, len(moments) - 1)]
        earlier = moments[max(at - 1, 0)]
        nearest = firsts[later]
        if abs(earlier - time_ms) < abs(later - time_ms):
            nearest = firsts[earlier]
        elif abs(earlier - time_ms) == abs(later - time_ms):
            nearest = min(nearest, firsts[earlier])
        shares.setdefault(nearest, []).append(exemplar)
    return shares
