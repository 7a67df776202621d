"""Take notes while a body of OTLP/JSON is read: repairs, values that do not fit their fields, and messages."""

from typing import Final

import orjson
from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.text import SHOWN_CHARACTERS_MAX, quoted
from adapters.codec.wire import put_bytes
from adapters.errors import INVALID_RECORD
from adapters.otlp.field_tables import UNFIT
from adapters.otlp.json_fields import HINTS, NATIVE_NAME, Field, Fields
from adapters.record import REJECTIONS_KEPT_MAX
from adapters.rows import check_row_count
from adapters.rules import Rules

_UNKNOWN_REPORTED_MAX: Final = 5
# An unknown field of these messages is a lost value: the item is stored without it. An unknown field of a message that holds
# items may mean lost items.
_OF_VALUES: Final = frozenset({"AnyValue", "ArrayValue", "KeyValueList", "KeyValue"})
# The work for a value that does not fit, in addition to that for its bytes (`Rules.read`).
_UNFIT_COST_BYTES: Final = 128
_REASONS_END: Final = 256
# How many values that do not fit get a message. An item has at most 16 fields, and its first misfit is its reason.
_UNFIT_WITH_WORDS_MAX: Final = 16 * REJECTIONS_KEPT_MAX


class Notes:
    """A `Notes` records the repairs of one body, and its values that do not fit their fields.

    A request may have a million values that do not fit. So a `put_` function raises nothing when it finds one: it returns
    False, and the caller removes what was written.
    """

    def __init__(self, rules: Rules, *, is_exact: bool) -> None:
        """Begin without notes. `is_exact` means that the body's long numbers were put in quotes, so that none loses digits."""
        self.rules: Final = rules
        self.is_exact: Final = is_exact
        self.nulls: int = 0
        self.integers: int = 0
        self.ids: int = 0
        # How many ids and byte values were read from another form than OTLP/JSON's.
        self.forms: int = 0
        self.left_out: int = 0
        # How many values do not fit. The item of each of them is to be rejected.
        self.unfit: int = 0
        self.items: i64 = 0
        self.lists: i64 = 0  # how many members hold items
        # For the current metric: whether it has data, and a rejected point that replaces data that does not fit.
        self.has_data: bool = False
        self.lost_data: bytes = b""
        # The first unknown fields, which are reported if nothing was taken.
        self.unknown: Final[list[str]] = []
        self.misplaced: Final[dict[str, str]] = {}  # unknown fields that hold items elsewhere, or a value
        # When a `put_` function has returned False: the field, what its value must be, and the value that came instead.
        self.field: Field | None = None
        self.expected: str = ""
        self.value: object = None

    def count_item(self) -> None:
        """Note that an item begins. Raises RequestRefused if the items would become too many rows."""
        self.items += 1
        check_row_count(self.items, self.rules)

    def skip(self, fields: Fields, name: str) -> None:
        """Note an unknown field."""
        if len(self.unknown) < _UNKNOWN_REPORTED_MAX:
            hint = ", which is for /api/v1/telemetry" if fields.is_request and name == NATIVE_NAME else HINTS.get(name, "")
            self.unknown.append(f"{fields.name} has no field {quoted(name)}{hint}")
        is_content = fields.name in _OF_VALUES or fields.holds_items
        is_reported = name in HINTS or (is_content and len(self.misplaced) < _UNKNOWN_REPORTED_MAX)
        if is_reported and name not in self.misplaced:
            self.misplaced[name] = f"{fields.name} has no field {quoted(name)}{HINTS.get(name, '')}"

    def refuse(self, field: Field, expected: str, value: object) -> bool:
        """Note that a value does not fit its field. Return False."""
        self.field = field
        self.expected = expected
        self.value = value
        return False

    def refusal(self) -> "Unfit":
        """Return the misfit that was noted last."""
        assert self.field is not None
        try:
            shown = orjson.dumps(self.value).decode()
        except orjson.JSONEncodeError:  # orjson reads values that are nested 1,024 deep, and writes 254 deep
            shown = "a value that is nested too deep"
        shown = shown if len(shown) <= SHOWN_CHARACTERS_MAX else f"{shown[:SHOWN_CHARACTERS_MAX]}…"
        return Unfit(f"{self.field.name} must be {self.expected}; got {shown}", self.field.reason)

    def rejection(self, unfit: "Unfit | None" = None) -> bytes:
        """Return the field that marks an item as rejected for `unfit`, or for the misfit that was noted last.

        It has a message only as long as messages are kept: for millions of items of two bytes, the messages would take thirty
        times as much as the items.
        """
        self.rules.read(_UNFIT_COST_BYTES)
        self.unfit += 1
        if self.unfit > _UNFIT_WITH_WORDS_MAX:
            if unfit is not None:
                return _REJECTIONS[unfit.reason]
            assert self.field is not None
            return _REJECTIONS[self.field.reason]
        found = self.refusal() if unfit is None else unfit
        return _rejection(found.reason, found.message.encode())

    def put_unfit_exemplar(self, writer: BytesWriter, field: Field) -> None:
        """Write an exemplar that is marked to be left out of its point, in place of one that does not fit."""
        self.rules.read(_UNFIT_COST_BYTES)
        put_bytes(writer, field.tag, _REJECTIONS[INVALID_RECORD])

    def leave_out(self) -> None:
        """Note that a value outside the items does not fit its field, and is left out."""
        self.left_out += 1
        self.rules.read(_UNFIT_COST_BYTES)

    def begin_metric(self) -> None:
        """Begin the notes for a metric: forget those of the metric before it."""
        self.has_data = False
        self.lost_data = b""

    def end_metric(self, writer: BytesWriter) -> None:
        """Write the rejected point for a metric's data that did not fit, unless the metric has other data."""
        if self.lost_data and self.has_data:
            self.leave_out()
        else:
            writer.write(self.lost_data)


class Unfit(Exception):
    """The field can't hold its value."""

    def __init__(self, message: str, reason: int = INVALID_RECORD) -> None:
        super().__init__(message)
        self.message: str = message
        self.reason: int = reason


class Inexact(Exception):
    """The body has a number that the parser can't represent, so its digits have to be read."""


def _rejection(reason: int, words: bytes) -> bytes:
    writer = BytesWriter()
    put_bytes(writer, UNFIT, bytes((reason,)) + words)
    return writer.getvalue()


# The marks of rejected items without a message, by reason.
_REJECTIONS: Final[list[bytes]] = [_rejection(reason, b"") for reason in range(_REASONS_END)]
