"""The questions that an adapter asks about what it reads, and the limits that it keeps. The collector answers them.

A request with more elements or row bytes than `Rules` allow is refused as a whole (adapters/price.py,
adapters/otlp/row_price.py, adapters/prometheus/price.py).
"""

from typing import Final

from mypy_extensions import i64

# Most bytes of rows that a message becomes, unless the rules say otherwise. See docs/use/store.md.
MESSAGE_ROW_BYTES_MAX: Final = 64 << 20
ENTRY_WORK_BYTES: Final = 128
# What one request may cost, unless the rules say otherwise. See docs/operate/configuration.md.
REQUEST_ELEMENTS_MAX: Final = 5_000_000
REQUEST_ROW_BYTES_MAX: Final = 512 << 20
# No plan allows more.
PLAN_ROW_BYTES_MAX: Final = 1 << 60
# An attribute's value may have any size, unless the rules say otherwise.
VALUE_BYTES_MAX: Final = 1 << 60

# A rest for so many bytes of a body, which take up to 3 ms; a step takes at least as long as 16 bytes, a rejected item as 128,
# and so does metadata that no item has, or an exemplar.
_REST_BYTES: Final = 64 << 10
_STEP_BYTES: Final = 16


def _sum(counts: dict[int, int] | None, more: dict[int, int]) -> dict[int, int]:
    """Return the sum of both, in a dictionary of its own."""
    summed = {} if counts is None else dict(counts)
    for kind, count in more.items():
        summed[kind] = summed.get(kind, 0) + count
    return summed


class Rules:
    """What an adapter asks about what arrived; `collector.ingest.validate` answers. Every answer is 0 or an item reason.

    `dead_letter_items_max` and `dead_letter_bytes_max` are the request's budget: of how many rejected items, and of how many
    bytes in all, payloads are kept. Without one, none are.
    """

    dead_letter_items_max: i64 = 0
    dead_letter_bytes_max: i64 = 0
    # A message is cut before the bytes of its rows (adapters/rows.py) exceed this.
    message_row_bytes_max: i64 = MESSAGE_ROW_BYTES_MAX
    # How much of a body has been read since the last rest, in bytes and a few for each step.
    unrested: i64 = 0
    # What was read until the last rest, counted so: of plain bodies little more than their bytes.
    work_bytes: i64 = 0
    # A request that holds more elements, or whose rows have more bytes, is refused as a whole.
    request_elements_max: i64 = REQUEST_ELEMENTS_MAX
    request_row_bytes_max: i64 = REQUEST_ROW_BYTES_MAX
    # A body whose elements were counted while it was decompressed.
    counted_body: bytes = b""
    # So are the rows that are more than the tenant's plan ever allows.
    plan_row_bytes_max: i64 = PLAN_ROW_BYTES_MAX
    # Most attributes in one list. Of more, none is looked at in detail: the item is refused.
    attributes_max: i64 = 1_000_000
    # `check_attribute` has nothing against an attribute that takes up to so many bytes in all: it need not be asked.
    attribute_bytes_unasked_max: i64 = 0
    # Whether some log record has no time, or none that is finer than a millisecond: so another event may have the same.
    has_coarse_times: bool = False
    # An item that does not fit a message may have one alone, of up to so many bytes.
    item_bytes_max: i64 = 0
    # Whether an attribute's value of more bytes is cut instead of refused, with its item.
    truncates_values: bool = False
    value_bytes_max: i64 = VALUE_BYTES_MAX
    # The same of its key, and of the name of a service, scope, span or event: cut so that two of them stay two
    # (adapters/codec/text.py, `shortened_name`). A label of remote write and a metric's name are never cut.
    cuts_keys: bool = False
    key_bytes_max: i64 = VALUE_BYTES_MAX
    cuts_names: bool = False
    name_bytes_max: i64 = VALUE_BYTES_MAX
    # Of a rejected item that no message can hold, so many bytes are kept; 0: all.
    dead_letter_cut_bytes: i64 = 0
    # Whether sums and histograms without a temporality are taken, as cumulative.
    assumes_cumulative: bool = False
    # What OTLP/JSON may be beside what its specification has (adapters/otlp/json.py).
    json_forms: int = 0
    # Fields of OTLP/JSON that are unknown, in words; the first of them.
    unknown_fields: list[str] | None = None
    # Fields of OTLP that are reported although items were taken: those that would hold items, or a value, in another request.
    misplaced_fields: list[str] | None = None
    # What was repaired of the request, and how often, by kind (adapters/repairs.py); None where nothing was.
    repaired: dict[int, int] | None = None
    # The same of the item, or of the resource, scope or metric, that is being read: counted if it is stored.
    pending: dict[int, int] | None = None

    def repair(self, kind: int, count: int = 1) -> None:
        """Note that something was repaired in the body, whatever becomes of the item that it is in."""
        self.repaired = _sum(self.repaired, {kind: count})

    def repair_pending(self, kind: int, count: int = 1) -> None:
        """Note what is repaired if the item that is being read is stored: a rejected one is kept as it was sent."""
        pending = self.pending
        if pending is None:
            pending = self.pending = {}
        pending[kind] = pending.get(kind, 0) + count

    def take_pending(self) -> dict[int, int] | None:
        """Return what is pending, which is forgotten here."""
        pending = self.pending
        self.pending = None
        return pending

    def put_back_pending(self, repairs: dict[int, int] | None) -> None:
        """Make pending what was taken, beside what is now."""
        if repairs is not None:
            self.pending = _sum(self.pending, repairs)

    def count_repairs(self, repairs: dict[int, int] | None) -> None:
        """Note what was repaired of something that is stored."""
        if repairs is not None:
            self.repaired = _sum(self.repaired, repairs)

    def note_misplaced(self, words: str) -> None:
        """Note a field whose content is not taken, once."""
        fields = self.misplaced_fields
        if fields is None:
            self.misplaced_fields = [words]
        elif words not in fields:
            fields.append(words)

    def restore_repairs(self, repairs: dict[int, int] | None) -> None:
        """Forget what was repaired since then: the body is read anew."""
        self.repaired = repairs
        self.pending = None

    def read(self, size_bytes: i64) -> None:
        """Note that so many bytes of the body have been read, and rest from time to time."""
        self.unrested += size_bytes + _STEP_BYTES
        if self.unrested > _REST_BYTES:
            self.work_bytes += self.unrested
            self.unrested = 0
            self.rest()

    def note_rejected(self) -> None:
        """Note that an item was rejected, which takes longer than its bytes do: 2 us. The next `read` may rest for it."""
        self.unrested += ENTRY_WORK_BYTES

    def rest(self) -> None:
        """Between two stretches of a body. Where it is read beside something else, this lets that go on."""

    def check_time(self, time_unix_nano: i64) -> i64:
        """When it happened; 0 is unknown, and a negative number is an unsigned one past 2**63: far in the future."""
        raise NotImplementedError

    def check_record_time(self, time_unix_nano: i64, is_log: bool) -> i64:
        """The same of a request that has items of two signals: of a log record or an event, or of a data point."""
        raise NotImplementedError

    def check_own_time(self, time_unix_nano: i64) -> i64:
        """When something happened whose other time, checked before, is newer: a span's start, a log record's own time."""
        raise NotImplementedError

    def check_attribute_count(self, count: i64) -> i64:
        raise NotImplementedError

    def check_attribute(self, key_bytes: i64, value_bytes: i64) -> i64:
        """Lengths in bytes, the value's as it was sent."""
        raise NotImplementedError

    def check_name(self, name_bytes: i64) -> i64:
        """The length of a metric's, span's, event's, service's or scope's name, in bytes."""
        raise NotImplementedError

    def message(self, reason: int) -> str:
        """Return the message for the sender, with the limit's number in it."""
        raise NotImplementedError


# Asks nothing and never rests.
NO_RULES: Final = Rules()
