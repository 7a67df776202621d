"""Write attributes whose keys and values may be too long, and cut them if the rules allow it.

A cut value gets a marker: an attribute that contains the value's original length. A cut key, or a marker's key, may also be
the key of another attribute. Then the last attribute is stored, as if the key had been sent twice.

Invariants:
1. No two attributes of a list have the same key (tests/contracts/test_adapter_over_limits.py,
   test_a_key_that_is_made_is_stored_once).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.text import shortened_name, text_within
from adapters.errors import ATTRIBUTE_KEY_TOO_LONG, ATTRIBUTE_VALUE_TOO_LONG
from adapters.record import put_attribute
from adapters.repairs import CUT_KEY_PREFIX, KEY_TRUNCATED, VALUE_TRUNCATED
from adapters.rules import Rules

# The parts of an attribute that are stored.
NOTHING: Final = 0
WITHOUT_MARKER: Final = 1
WHOLE: Final = 2


def kept_of(keys: list[bytes], markers: list[bytes]) -> list[int]:
    """Return for each attribute of a list, by the keys as they are stored, which part of it is stored.

    `markers` has the key of each attribute's marker, or empty if the value was not cut.
    """
    kept: list[int] = []
    taken: set[bytes] = set()
    for n in range(len(keys) - 1, -1, -1):
        if keys[n] in taken:
            kept.append(NOTHING)
            continue
        taken.add(keys[n])
        kept.append(WITHOUT_MARKER if markers[n] in taken else WHOLE)
        if markers[n]:
            taken.add(markers[n])
    kept.reverse()
    return kept


class CheckedAttributes:
    """A `CheckedAttributes` writes the attributes of one list: `begin`, `put` each, and `end`."""

    def __init__(self, rules: Rules) -> None:
        self._rules: Final = rules
        self._writer = BytesWriter()
        self._tag: i64 = 0
        self._start: i64 = 0
        # The keys of the attributes that have been written, the keys of their markers, and where they end.
        self._keys: Final[list[bytes]] = []
        self._markers: Final[list[bytes]] = []
        self._ends: Final[list[int]] = []  # two for each: the end of the attribute, and of its marker
        self._is_made: bool = False

    def begin(self, writer: BytesWriter, tag: i64) -> None:
        """Begin a list in `writer`. `tag` is the tag of its attributes, below 128."""
        self._writer = writer
        self._tag = tag
        self._start = len(writer)
        self._is_made = False
        self._keys.clear()
        self._markers.clear()
        self._ends.clear()

    def put(self, key: bytes, text: bytes) -> i64:
        """Write an attribute and return 0. If it can't be taken, write nothing and return the reason."""
        rules = self._rules
        writer = self._writer
        marker = b""
        reason: i64 = rules.check_attribute(len(key), len(text))
        if reason == ATTRIBUTE_KEY_TOO_LONG and rules.cuts_keys:
            rules.repair_pending(KEY_TRUNCATED)
            self._is_made = True
            key = shortened_name(key, rules.key_bytes_max, rules)
            reason = rules.check_attribute(len(key), len(text))
        if reason == ATTRIBUTE_VALUE_TOO_LONG and rules.truncates_values:
            rules.repair_pending(VALUE_TRUNCATED)
            self._is_made = True
            marker = CUT_KEY_PREFIX + key
            put_attribute(writer, self._tag, key, text_within(text, rules.value_bytes_max))
            self._ends.append(len(writer))
            put_attribute(writer, self._tag, marker, str(len(text)).encode())
            reason = 0
        elif reason == 0:
            put_attribute(writer, self._tag, key, text)
            self._ends.append(len(writer))
        else:
            return reason
        self._ends.append(len(writer))
        self._keys.append(key)
        self._markers.append(marker)
        return 0

    def end(self) -> None:
        """Remove the attributes and markers that a later attribute has replaced."""
        if not self._is_made:
            return
        kept = kept_of(self._keys, self._markers)
        if all(each == WHOLE for each in kept):
            return
        writer = self._writer
        written = writer.getvalue()
        self._rules.read(len(written))
        writer.truncate(self._start)
        start: i64 = self._start
        for n in range(len(kept)):
            end: i64 = self._ends[2 * n]
            after: i64 = self._ends[2 * n + 1]
            if kept[n] == WHOLE:
                end = after
            if kept[n] != NOTHING:
                writer.write(written[start:end])
            start = after
        self._rules.read(len(written))
