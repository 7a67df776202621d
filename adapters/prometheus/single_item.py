"""Build the remote write 2.0 request of a single item: its series' labels, metadata and start, and only this item.

Its table of symbols has the first symbol, the empty text, and the symbols that the item refers to, in the order of its
references. A reference that leads out of the sent table also leads out of this table, which has no more symbols. Everything
else is copied. The request's size is known before it is built, and no text is read before that.

Invariants:
1. The request is adapted as the item would have been by itself (test_any_rejected_remote_write_item_can_be_replayed).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import Cursor, field_size, put_bytes, put_signed_varint, put_varint
from adapters.rules import Rules

_SYMBOLS: Final = 0x22
_TIMESERIES: Final = 0x2A
_LABELS_REFS: Final = 0x0A  # of a TimeSeries and of an Exemplar
_EXEMPLARS: Final = 0x22
_METADATA: Final = 0x2A
_CREATED: Final = 0x30
_HELP_REF: Final = 0x18
_UNIT_REF: Final = 0x20
_LOW_32_BITS: Final = 0xFFFFFFFF


class SingleItemWrite:
    """A `SingleItemWrite` makes requests of one item each. The items are in `buffer`, and have been read before.

    Use: `set_series` for the series, `add` for the item's exemplars, `size`, and, if there is room for it, `request`.
    """

    def __init__(self, buffer: bytes, symbols: list[bytes], rules: Rules) -> None:
        """Prepare to make requests. Rest as `rules` say."""
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.cursor: Final = Cursor(buffer)
        self.symbols: Final = symbols
        # The table: the symbols that follow the first, the new number of each, and the encoded size of all.
        self.table: Final[list[int]] = []
        self.numbers: Final[dict[int, int]] = {}
        self.table_bytes: i64 = 0
        # The current series: where it begins, its fields before and after its items, and how many symbols these refer to.
        self.series_at: i64 = -1
        self.before: bytes = b""
        self.behind: bytes = b""
        self.series_symbols: i64 = 0
        # The exemplars of the current item, encoded.
        self.exemplars: Final = BytesWriter()

    def set_series(
        self, series_at: i64, labels_start: i64, labels_end: i64, metadata_start: i64, metadata_end: i64, created_ms: i64
    ) -> None:
        """Set the next item's series: where it begins, its packed references, its Metadata, its created timestamp."""
        self.exemplars.truncate(0)
        if series_at == self.series_at:
            while len(self.table) > self.series_symbols:
                ref = self.table.pop()
                self.table_bytes -= field_size(len(self.symbols[ref]))
                del self.numbers[ref]
            return
        self.series_at = series_at
        self.table.clear()
        self.numbers.clear()
        self.table_bytes = field_size(0) if self.symbols else 0
        before = BytesWriter()
        put_bytes(before, _LABELS_REFS, self._labels(labels_start, labels_end))
        self.before = before.getvalue()
        behind = BytesWriter()
        if metadata_end > metadata_start:
            put_bytes(behind, _METADATA, self._metadata(metadata_start, metadata_end))
        if created_ms:
            behind.append(_CREATED)
            put_signed_varint(behind, created_ms)
        self.behind = behind.getvalue()
        self.series_symbols = len(self.table)

    def add(self, start: i64, end: i64) -> None:
        """Add the Exemplar at start:end to the current item."""
        cursor = self.cursor
        exemplar = BytesWriter()
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            self.rules.read(0)
            if tag == _LABELS_REFS:
                put_bytes(exemplar, _LABELS_REFS, self._labels(cursor.start, position))
            else:
                exemplar.write(self.buffer[at:position])
        put_bytes(self.exemplars, _EXEMPLARS, exemplar.getvalue())

    def size(self, tag: i64, item_bytes: i64) -> i64:
        """Return the size of the request that `request` makes of an item of `item_bytes`."""
        return self.table_bytes + field_size(self._series_bytes(tag, item_bytes))

    def request(self, tag: i64, start: i64, end: i64) -> bytes:
        """Return the request of the item at start:end, field `tag` of its series. If `tag` is 0, the series has only exemplars,
        or nothing at all."""
        writer = BytesWriter()
        if self.symbols:
            put_bytes(writer, _SYMBOLS, b"")
        for ref in self.table:
            symbol = self.symbols[ref]
            put_bytes(writer, _SYMBOLS, symbol)
            self.rules.read(len(symbol))
        writer.append(_TIMESERIES)
        put_varint(writer, self._series_bytes(tag, end - start))
        writer.write(self.before)
        if tag:
            item = self.buffer[start:end]
            self.rules.read(len(item))
            put_bytes(writer, tag, item)
            self.rules.read(len(item))
        writer.write(self.exemplars.getvalue())
        writer.write(self.behind)
        request = writer.getvalue()
        self.rules.read(len(request))
        return request

    def _series_bytes(self, tag: i64, item_bytes: i64) -> i64:
        size: i64 = len(self.before) + len(self.exemplars) + len(self.behind)
        return size + field_size(item_bytes) if tag else size

    def _number(self, ref: i64) -> i64:
        """Return the reference in the new table to the symbol of `ref` in the sent table."""
        if ref == 0 or ref >= len(self.symbols):
            return ref
        number = self.numbers.get(ref, 0)
        if number == 0:
            self.table.append(ref)
            self.table_bytes += field_size(len(self.symbols[ref]))
            number = self.numbers[ref] = len(self.table)
        return number

    def _labels(self, start: i64, end: i64) -> bytes:
        """Return the packed references at start:end, as references into the new table."""
        cursor = self.cursor
        numbers = BytesWriter()
        cursor.position = start
        while cursor.position < end:
            self.rules.read(0)
            put_varint(numbers, self._number(cursor.varint(end) & _LOW_32_BITS))
        return numbers.getvalue()

    def _metadata(self, start: i64, end: i64) -> bytes:
        cursor = self.cursor
        metadata = BytesWriter()
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            self.rules.read(0)
            if tag == _HELP_REF or tag == _UNIT_REF:
                put_varint(metadata, tag)
                put_varint(metadata, self._number(cursor.value & _LOW_32_BITS))
            else:
                metadata.write(self.buffer[at:position])
        return metadata.getvalue()
