"""Check arrays and objects in a record's attributes, and write them as JSON, so that long integers keep their digits.

The parser makes doubles of integers beyond 64 bits. If an array or object may have such an integer, the record's text is read
once more with its long numbers in quotes.
"""

from json import JSONEncoder
from typing import Final

import orjson
from mypy_extensions import i64

from adapters.codec.json_numbers import INTEGER_DIGITS_MAX, is_whole, quote_long_numbers
from adapters.codec.text import quoted, shortened
from adapters.errors import INVALID_ATTRIBUTES, NESTED_TOO_DEEP
from adapters.rules import NESTING_MAX, Rules

# Beyond these a double may have been an integer of more than 64 bits.
_LOWEST_INTEGER: Final = -9.2e18
_HIGHEST_INTEGER: Final = 1.8e19


class NotFinite:
    """A `NotFinite` replaces a number without a finite float64 value: NaN, Infinity, 1e999, an integer of 400 digits."""

    def __init__(self, token: str) -> None:
        self.token: Final = token
        self.is_integer: Final = is_whole(token)


def _digits_of(number: object) -> str:
    """Return the text of an integer beyond a double: `NestedValues.check` accepts no other `NotFinite`."""
    assert isinstance(number, NotFinite)
    return number.token


_ENCODER: Final = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_digits_of)


class NestedValues:
    """A `NestedValues` checks arrays and objects, and writes them as JSON."""

    def __init__(self, rules: Rules) -> None:
        """Prepare to check values. Rest as `rules` say."""
        self.rules: Final = rules
        # After `check`: whether certainly no double was a longer integer; and the number that is not finite.
        self.is_exact: bool = True
        self.not_finite: object = None

    def check(self, value: object) -> i64:
        """Return 0, or the reason for a rejection: NESTED_TOO_DEEP, or INVALID_ATTRIBUTES for `not_finite`."""
        self.is_exact = True
        return self._check(value, 0)

    def json(self, value: object, quoted_value: object) -> bytes:
        """Return the value that was checked last as JSON. If it is not exact, `quoted_value` has its long numbers in quotes."""
        self.rules.rest()
        text = _ENCODER.encode(value if self.is_exact else _exact(value, quoted_value)).encode()
        self.rules.rest()
        return text

    def _check(self, value: object, depth: i64) -> i64:
        if isinstance(value, list):
            if depth >= NESTING_MAX:
                return NESTED_TOO_DEEP
            for member in value:
                self.rules.read(0)
                if not isinstance(member, str):
                    reason: i64 = self._check(member, depth + 1)
                    if reason:
                        return reason
        elif isinstance(value, dict):
            if depth >= NESTING_MAX:
                return NESTED_TOO_DEEP
            for member in value.values():
                self.rules.read(0)
                if not isinstance(member, str):
                    reason = self._check(member, depth + 1)
                    if reason:
                        return reason
        elif isinstance(value, NotFinite):
            if not value.is_integer:
                self.not_finite = value
                return INVALID_ATTRIBUTES
        elif isinstance(value, float) and not is_double(value):
            self.is_exact = False
        return 0


def is_double(value: float) -> bool:
    """Return whether a number that the parser read as a double was certainly not an integer beyond 64 bits."""
    return _LOWEST_INTEGER < value < _HIGHEST_INTEGER


def with_long_numbers(text: bytes, attributes: dict[str, object], rules: Rules) -> dict[str, object]:
    """Return the attributes of the record in `text`, with each long number as a string."""
    rules.rest()
    try:
        record: object = orjson.loads(quote_long_numbers(text, rules))
    except orjson.JSONDecodeError:
        return attributes  # the record has a NaN, so Python's parser has read it, which keeps integers
    rules.rest()
    assert isinstance(record, dict)
    found = record["attributes"]
    assert isinstance(found, dict)
    return found


def _exact(value: object, quoted_value: object) -> object:
    """Return a value with its integers beyond 64 bits restored."""
    if isinstance(value, float) and isinstance(quoted_value, str) and is_whole(quoted_value):
        return int(quoted_value) if len(quoted_value) <= INTEGER_DIGITS_MAX else NotFinite(quoted_value)
    if isinstance(value, list) and isinstance(quoted_value, list):
        return [_exact(member, quoted_value[index]) for index, member in enumerate(value)]
    if isinstance(value, dict) and isinstance(quoted_value, dict):
        return {key: _exact(member, quoted_value[key]) for key, member in value.items()}
    return value


def shown(value: object) -> str:
    """Return a wrong value as it is shown in a message: its JSON type, and its shortened and escaped text."""
    if value is None:
        return "null"
    if isinstance(value, NotFinite):
        return shortened(value.token)
    if isinstance(value, bool):
        return "boolean true" if value else "boolean false"
    if isinstance(value, (int, float)):
        return f"number {shortened(repr(value))}"
    if isinstance(value, str):
        return f"string {quoted(value)}"
    if isinstance(value, list):
        return f"array of {len(value)}"
    return "object"
