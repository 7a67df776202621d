"""The checks that an adapter requests while it reads, and the limits that it keeps. The collector implements them.

A request with more elements or row bytes than `Rules` allow is refused as a whole (adapters/price.py,
adapters/otlp/row_price.py, adapters/prometheus/price.py).
"""

from typing import Final

from mypy_extensions import i64

# The most bytes of a message's rows, unless the rules set another limit. See docs/use/store.md.
MESSAGE_ROW_BYTES_MAX: Final = 64 << 20
ENTRY_WORK_BYTES: Final = 128
# The limits of one request, unless the rules set others. See docs/operate/configuration.md.
REQUEST_ELEMENTS_MAX: Final = 5_000_000
REQUEST_ROW_BYTES_MAX: Final = 512 << 20
# No plan allows more.
PLAN_ROW_BYTES_MAX: Final = 1 << 60
# An attribute's value may have any size, unless the rules set a limit.
VALUE_BYTES_MAX: Final = 1 << 60
# How deep an attribute's value may be nested; deeper nesting is more likely a mistake.
NESTING_MAX: Final = 64

# The bytes of a body from one rest to the next, which take up to 3 ms. A step takes at least as long as 16 bytes. A rejected
# item, an exemplar, and metadata that no item has take as long as 128 bytes.
_REST_BYTES: Final = 64 << 10
_STEP_BYTES: Final = 16


def _sum(counts: dict[int, int] | None, more: dict[int, int]) -> dict[int, int]:
    """Return the sum of both, in a new dictionary."""
    summed = {} if counts is None else dict(counts)
    for kind, count in more.items():
        summed[kind] = summed.get(kind, 0) + count
    return summed


class Rules:
    """A `Rules` checks what an adapter reads; `collector.ingest.validate` implements it. A check returns 0 or an item reason.

    `dead_letter_items_max` and `dead_letter_bytes_max` are the request's budget: the most rejected items whose payloads are
    kept, and the most bytes of these payloads. Without a budget, none are kept.
    """

    dead_letter_items_max: i64 = 0
    dead_letter_bytes_max: i64 = 0
    # A message is cut before the bytes of its rows (adapters/rows.py) exceed this.
    message_row_bytes_max: i64 = MESSAGE_ROW_BYTES_MAX
    # The bytes of a body that were read since the last rest, and a few more for each step.
    unrested: i64 = 0
    # The bytes that were read until the last rest, counted in the same way: for plain bodies little more than their size.
    work_bytes: i64 = 0
    # A request that holds more elements, or whose rows have more bytes, is refused as a whole.
    request_elements_max: i64 = REQUEST_ELEMENTS_MAX
    request_row_bytes_max: i64 = REQUEST_ROW_BYTES_MAX
    # A body whose elements were counted while it was decompressed.
    counted_body: bytes = b""
    # A request whose rows have more bytes than the tenant's plan ever allows is refused as a whole, too.
    plan_row_bytes_max: i64 = PLAN_ROW_BYTES_MAX
    # The most attributes in one list. Of more, OTLP and the native API drop the rest; remote write rejects the series.
    attributes_max: i64 = 1_000_000
    # `check_attribute` accepts every attribute of at most this many bytes in all, so it need not be called for these.
    attribute_bytes_unasked_max: i64 = 0
    # Whether some log record has no time, or one of whole milliseconds: so another event may have the same.
    has_coarse_times: bool = False
    # An item that does not fit a message may have a message of its own, of up to this many bytes.
    item_bytes_max: i64 = 0
    # Whether an attribute's value of more than `value_bytes_max` is cut, instead of rejecting its item.
    truncates_values: bool = False
    value_bytes_max: i64 = VALUE_BYTES_MAX
    # The same for an attribute's key, and for the name of a service, scope, span or event: cut so that two names stay different
    # (adapters/codec/text.py, `shortened_name`). A label of remote write and a metric's name are never cut.
    cuts_keys: bool = False
    key_bytes_max: i64 = VALUE_BYTES_MAX
    cuts_names: bool = False
    name_bytes_max: i64 = VALUE_BYTES_MAX
    # The bytes that are kept of a rejected item that no message can hold; 0: all.
    dead_letter_cut_bytes: i64 = 0
    # Whether sums and histograms without a temporality are accepted, as cumulative.
    assumes_cumulative: bool = False
    # The forms of OTLP/JSON that are read beyond its specification (adapters/otlp/json.py).
    json_forms: int = 0
    # The first unknown fields of OTLP/JSON, in words.
    unknown_fields: list[str] | None = None
    # Fields of OTLP that are reported although items were taken: those that would hold items, or a value, in another request.
    misplaced_fields: list[str] | None = None
    # The repairs of the request by kind (adapters/repairs.py), with their counts; None if there was none.
    repaired: dict[int, int] | None = None
    # The same for the item, resource, scope or metric that is being read: counted if it is stored.
    pending: dict[int, int] | None = None

    def repair(self, kind: int, count: int = 1) -> None:
        """Count a repair of the body, whether or not the item around it is stored."""
        self.repaired = _sum(self.repaired, {kind: count})

    def repair_pending(self, kind: int, count: int = 1) -> None:
        """Note a repair that counts if the item that is being read is stored: a rejected item is kept as it was sent."""
        pending = self.pending
        if pending is None:
            pending = self.pending = {}
        pending[kind] = pending.get(kind, 0) + count

    def take_pending(self) -> dict[int, int] | None:
        """Return the pending repairs, and clear them."""
        pending = self.pending
        self.pending = None
        return pending

    def put_back_pending(self, repairs: dict[int, int] | None) -> None:
        """Add the repairs that `take_pending` returned to the pending ones."""
        if repairs is not None:
            self.pending = _sum(self.pending, repairs)

    def count_repairs(self, repairs: dict[int, int] | None) -> None:
        """Count the repairs of something that is stored."""
        if repairs is not None:
            self.repaired = _sum(self.repaired, repairs)

    def note_misplaced(self, words: str) -> None:
        """Note a field whose content is not stored, once."""
        fields = self.misplaced_fields
        if fields is None:
            self.misplaced_fields = [words]
        elif words not in fields:
            fields.append(words)

    def restore_repairs(self, repairs: dict[int, int] | None) -> None:
        """Set the repairs back to `repairs`: the body is read again."""
        self.repaired = repairs
        self.pending = None

    def read(self, size_bytes: i64) -> None:
        """Note that `size_bytes` of the body have been read, and rest from time to time."""
        self.unrested += size_bytes + _STEP_BYTES
        if self.unrested > _REST_BYTES:
            self.work_bytes += self.unrested
            self.unrested = 0
            self.rest()

    def note_rejected(self) -> None:
        """Note that an item was rejected, which takes longer than its bytes do: 2 us. The next `read` may rest for it."""
        self.unrested += ENTRY_WORK_BYTES

    def rest(self) -> None:
        """Let other work run between two parts of a body."""

    def check_time(self, time_unix_nano: i64) -> i64:
        """Check when an item happened; 0 is unknown, and a negative number is an unsigned one past 2**63: far in the future."""
        raise NotImplementedError

    def check_record_time(self, time_unix_nano: i64, is_log: bool) -> i64:
        """Check the same in a request that has items of two signals, for a log record or an event, or else a data point."""
        raise NotImplementedError

    def check_own_time(self, time_unix_nano: i64) -> i64:
        """Check the older time of an item whose newer one was checked before: a span's start, a log record's own time."""
        raise NotImplementedError

    def check_attribute_count(self, count: i64) -> i64:
        raise NotImplementedError

    def check_attribute(self, key_bytes: i64, value_bytes: i64) -> i64:
        """Check an attribute's sizes in bytes, the value's as it was sent."""
        raise NotImplementedError

    def check_name(self, name_bytes: i64) -> i64:
        """Check the size of a metric's, span's, event's, service's or scope's name, in bytes."""
        raise NotImplementedError

    def message(self, reason: int) -> str:
        """Return the message for the sender, with the limit's number in it."""
        raise NotImplementedError


# Checks nothing and never rests.
NO_RULES: Final = Rules()
