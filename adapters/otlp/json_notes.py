"""What is noted of a body of OTLP/JSON while it is read: what is repaired, what does not fit, and in which words."""

from typing import Final

import orjson
from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.text import quoted
from adapters.codec.wire import put_bytes
from adapters.errors import INVALID_RECORD
from adapters.otlp.field_tables import UNFIT
from adapters.otlp.json_fields import HINTS, NATIVE_NAME, Field, Fields
from adapters.record import REJECTIONS_KEPT_MAX
from adapters.rows import check_row_count
from adapters.rules import Rules

_UNKNOWN_TOLD_MAX: Final = 5
# Of these messages an unknown field is a lost value: their items are stored without it. Where a message holds items, it may be
# lost items.
_OF_VALUES: Final = frozenset({"AnyValue", "ArrayValue", "KeyValueList", "KeyValue"})
_SHOWN_CHARACTERS_MAX: Final = 40
# What a value that does not fit takes beside its bytes.
_UNFIT_COST_BYTES: Final = 128
_REASONS_END: Final = 256
# An item has at most 16 fields, and the first of them that does not fit says why.
_UNFIT_WITH_WORDS_MAX: Final = 16 * REJECTIONS_KEPT_MAX


class Notes:
    """What is repaired of one body while it is read, and what does not fit.

    A request may have a million values that do not fit. So a `put_` function that meets one raises nothing: it returns False,
    and the caller truncates what was written.
    """

    def __init__(self, rules: Rules, *, is_exact: bool) -> None:
        """`is_exact`: long numbers are in quotes, so that none has lost digits."""
        self.rules: Final = rules
        self.is_exact: Final = is_exact
        self.nulls: int = 0
        self.integers: int = 0
        self.ids: int = 0
        # Ids and bytes that were read from another form than theirs.
        self.forms: int = 0
        self.left_out: int = 0
        # Values, each of an item that is to be rejected.
        self.unfit: int = 0
        self.items: i64 = 0
        self.lists: i64 = 0  # members that hold items
        # Of the current metric: whether it has data, and a rejected point in the place of data that does not fit.
        self.has_data: bool = False
        self.lost_data: bytes = b""
        # The first fields that no message has: reported if nothing was taken.
        self.unknown: Final[list[str]] = []
        self.misplaced: Final[dict[str, str]] = {}  # those that hold items elsewhere, or a value: reported in any case
        # After a `put_` function has returned False: the field, what it must have, and what it got instead.
        self.field: Field | None = None
        self.wanted: str = ""
        self.value: object = None

    def count_item(self) -> None:
        """Note that an item begins. Raises RequestRefused where there are more than may become rows."""
        self.items += 1
        check_row_count(self.items, self.rules)

    def skip(self, fields: Fields, name: str) -> None:
        """Note a field that is unknown."""
        if len(self.unknown) < _UNKNOWN_TOLD_MAX:
            hint = ", which is for /api/v1/telemetry" if fields.is_request and name == NATIVE_NAME else HINTS.get(name, "")
            self.unknown.append(f"{fields.name} has no field {quoted(name)}{hint}")
        is_content = fields.name in _OF_VALUES or fields.holds_items
        is_told = name in HINTS or (is_content and len(self.misplaced) < _UNKNOWN_TOLD_MAX)
        if is_told and name not in self.misplaced:
            self.misplaced[name] = f"{fields.name} has no field {quoted(name)}{HINTS.get(name, '')}"

    def refuse(self, field: Field, wanted: str, value: object) -> bool:
        """Note that a value does not fit its field. Return False."""
        self.field = field
        self.wanted = wanted
        self.value = value
        return False

    def refusal(self) -> "Unfit":
        """Return what was noted last."""
        assert self.field is not None
        try:
            shown = orjson.dumps(self.value).decode()
        except orjson.JSONEncodeError:  # it reads values 1,024 deep, and writes them 254 deep
            shown = "a value that is nested too deep"
        shown = shown if len(shown) <= _SHOWN_CHARACTERS_MAX else f"{shown[:_SHOWN_CHARACTERS_MAX]}…"
        return Unfit(f"{self.field.name} must be {self.wanted}; got {shown}", self.field.reason)

    def rejection(self, unfit: "Unfit | None" = None) -> bytes:
        """Return what an item has that is to be rejected for `unfit`, or for what was noted last.

        The reason in words follows as long as it may be kept: of millions of items of two bytes, the words are thirty times as
        much.
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
        """Write an exemplar that is left out of its point, in the place of what does not fit."""
        self.rules.read(_UNFIT_COST_BYTES)
        put_bytes(writer, field.tag, _REJECTIONS[INVALID_RECORD])

    def leave_out(self) -> None:
        """Note that something does not fit an envelope and is left out."""
        self.left_out += 1
        self.rules.read(_UNFIT_COST_BYTES)

    def begin_metric(self) -> None:
        """Forget the data of the metric before."""
        self.has_data = False
        self.lost_data = b""

    def end_metric(self, writer: BytesWriter) -> None:
        """Write what is in the place of a metric's data, if that did not fit, and there is no other."""
        if self.lost_data and self.has_data:
            self.leave_out()
        else:
            writer.write(self.lost_data)


class Unfit(Exception):
    """A value that its field can't hold."""

    def __init__(self, message: str, reason: int = INVALID_RECORD) -> None:
        super().__init__(message)
        self.message: str = message
        self.reason: int = reason


class Inexact(Exception):
    """A number was met that the parser can't hold, and its digits are to be read."""


def _rejection(reason: int, words: bytes) -> bytes:
    writer = BytesWriter()
    put_bytes(writer, UNFIT, bytes((reason,)) + words)
    return writer.getvalue()


# Without words, by reason.
_REJECTIONS: Final[list[bytes]] = [_rejection(reason, b"") for reason in range(_REASONS_END)]
