"""Decode heads of HTTP/2 from HPACK, and encode them (RFC 7541; RFC 9113, 8.2 and 8.3).

Invariants:
1. A head that breaks RFC 9113's rules is marked, and never becomes a request (test_what_is_not_well_formed_is_marked).
2. The table of a connection stays in step with its client's, whatever the client sends, or decoding fails
   (test_any_encoder_is_understood_as_hpack_does).
3. A head that is too large is read to its end, and at most the limit of it is kept, so only its request fails
   (test_a_head_over_the_limit_leaves_the_table_in_step). At most FIELDS_MAX fields are kept
   (test_a_head_has_a_bounded_number_of_fields).
4. A block has the same meaning as long as the table has not changed. Clients repeat their heads, so meanings are kept
   (test_what_is_remembered_of_a_head_is_what_it_means).
"""

from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from mypy_extensions import i64

_STATIC: Final = HeaderTable.STATIC_TABLE_MAPPING
_STATIC_FIELDS: Final[list[tuple[bytes, bytes]]] = [(bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE]
_STATIC_LAST: Final = len(HeaderTable.STATIC_TABLE)
# The bytes that a header counts in addition to its name and value, RFC 9113.
HEADER_BYTES_OVERHEAD: Final = 32
# The table's size unless SETTINGS have another; ours do not.
_TABLE_BYTES_MAX: Final = 4096
# The most blocks whose meanings a connection keeps, and their largest size.
_KEPT_MAX: Final = 32
_KEPT_BYTES_MAX: Final = 1024
# More than any length that is not skipped or refused anyway.
_INTEGER_MAX: Final = 2**31
# An integer's octets after its prefix: enough for 35 bits.
_INTEGER_SHIFT_MAX: Final = 28
# Digits that fit into 64 bits, whatever they are.
_LENGTH_DIGITS_MAX: Final = 18
# The part of a field that comes next.
_FIELD: Final = 0
_NAME: Final = 1
_VALUE: Final = 2
# Headers that describe a connection, and must not be sent in HTTP/2.
OF_CONNECTIONS: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
# RFC 9110's token without capitals: control characters, spaces and separators are not in it.
_NAME_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
# The most fields of a head: a field of two octets takes 130 bytes of memory, and clients send twenty.
FIELDS_MAX: Final = 256


class HeadError(Exception):
    """A block can't be decoded, so the connection's table is lost."""


class RequestHead:
    """A request's head. If it `is_malformed`, it breaks RFC 9113's rules, and its other attributes must not be used."""

    def __init__(self, headers: list[tuple[bytes, bytes]], skipped_bytes: int = 0) -> None:
        """`headers` are as received, with the pseudo-headers. `skipped_bytes` is the size of headers that were not kept."""
        self.method: bytes = b""
        self.path: bytes = b""
        self.authority: bytes = b""
        self.content_length: int = -1
        self.size_bytes: int = skipped_bytes
        self.headers: Final[list[tuple[bytes, bytes]]] = []
        self.is_malformed: bool = False
        self.is_trailers: bool = True  # it has no pseudo-header
        self.is_cut: bool = skipped_bytes > 0
        self.meaning: object | None = None  # set by its reader, to compute it once
        self._read(headers)

    def _read(self, fields: list[tuple[bytes, bytes]]) -> None:
        seen: set[bytes] = set()
        for name, sent in fields:
            self.size_bytes += len(name) + len(sent) + HEADER_BYTES_OVERHEAD
            if b"\0" in sent or b"\r" in sent or b"\n" in sent:
                self.is_malformed = True
            # Spaces around a value are not part of it. RFC 9113 calls them malformed, but gRPC's text has metadata's stripped.
            value = sent.strip(b" \t")
            if name.startswith(b":"):
                if name in seen or self.headers or len(value) < len(sent):
                    self.is_malformed = True
                seen.add(name)
                self.is_trailers = False
                if name == b":method":
                    self.method = value
                elif name == b":path":
                    self.path = value
                elif name == b":authority":
                    self.authority = value
                elif name != b":scheme":
                    self.is_malformed = True
                continue
            if not name or name.translate(None, _NAME_BYTES) or name in OF_CONNECTIONS:
                self.is_malformed = True
            elif name == b"te":
                self.is_malformed |= value.lower() != b"trailers"
            elif name == b"content-length":
                if not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX or self.content_length >= 0:
                    self.is_malformed = True
                else:
                    self.content_length = int(value)
            self.headers.append((name, value))
        if self.is_trailers or self.is_cut:
            return
        if self.method == b"CONNECT":
            self.is_malformed |= b":path" in seen or b":scheme" in seen or not self.authority
        elif not self.path or not {b":method", b":scheme"} <= seen:
            self.is_malformed = True


class HeadDecoder:
    """The HPACK decoder of a connection. Call `decode` for a whole block, or `feed` for its pieces and then `finish`."""

    def __init__(self, header_bytes_max: int) -> None:
        """At most `header_bytes_max` bytes of a head are kept."""
        self._header_bytes_max: i64 = header_bytes_max
        self._huge_bytes: i64 = max(header_bytes_max, _TABLE_BYTES_MAX)
        self._kept: Final[dict[bytes, RequestHead]] = {}
        # The dynamic table, the newest entry last.
        self._entries: Final[list[tuple[bytes, bytes]]] = []
        self._table_bytes: i64 = 0
        self._table_bytes_max: i64 = _TABLE_BYTES_MAX
        self._has_changed: bool = False
        # The head that is being read.
        self._fields: list[tuple[bytes, bytes]] = []
        self._size_bytes: i64 = 0
        self._skipped_bytes: i64 = 0
        self._has_fields: bool = False
        # The field that is being read.
        self._rest: bytes = b""  # the received bytes of its next part
        self._skip: i64 = 0  # the missing bytes of a string that is too long to be kept
        self._wants: i64 = _FIELD
        self._is_indexed: bool = False
        self._is_huge: bool = False
        self._name: bytes = b""

    def decode(self, block: bytes) -> RequestHead:
        """Return the head of a whole block. Raises HeadError."""
        head = self._kept.get(block)
        if head is not None:
            return head
        self._has_changed = False
        self.feed(block)
        head = self.finish()
        if self._has_changed:
            self._kept.clear()
        elif len(block) <= _KEPT_BYTES_MAX:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[block] = head
        return head

    def feed(self, piece: bytes) -> None:
        """Take the next piece of a block. Raises HeadError."""
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        at: i64 = 0
        end: i64 = len(piece)
        while at < end:
            if self._skip:
                step: i64 = min(self._skip, end - at)
                self._skip -= step
                at += step
                if not self._skip:
                    self._string(b"")
                continue
            after = self._field(piece, at) if self._wants == _FIELD else self._read_string(piece, at, end)
            if after < 0:
                self._rest = piece[at:]
                return
            at = after

    def finish(self) -> RequestHead:
        """Return the head of the block whose pieces were fed. Raises HeadError."""
        if self._rest or self._skip or self._wants != _FIELD:
            raise HeadError("the block is truncated")
        fields, skipped_bytes = self._fields, self._skipped_bytes
        self._fields = []
        self._size_bytes = 0
        self._skipped_bytes = 0
        self._has_fields = False
        return RequestHead(fields, int(skipped_bytes))

    def pending(self) -> bytes:
        """Return the part of a field that is kept until the rest of it comes."""
        return self._rest

    def forget(self) -> None:
        """Forget the kept meanings, since blocks in pieces may have changed the table."""
        self._kept.clear()

    def _field(self, data: bytes, at: i64) -> i64:
        """Read the first part of a field. Return where it ends; -1 if it is not whole."""
        first: i64 = data[at]
        if first & 0x80:
            index, at = _integer(data, at, 0x7F)
            if at >= 0:
                entry = self._entry(index)
                self._add(entry[0], entry[1])
            return at
        if first & 0xE0 == 0x20:
            size, at = _integer(data, at, 0x1F)
            if at >= 0:
                # RFC 7541, 4.2: only at the beginning of a block.
                if self._has_fields or size > _TABLE_BYTES_MAX:
                    raise HeadError(f"a table of {size} bytes; at most {_TABLE_BYTES_MAX} at the beginning of a block")
                self._table_bytes_max = size
                self._has_changed = True
                self._evict()
            return at
        is_indexed = first & 0x40 != 0
        index, at = _integer(data, at, 0x3F if is_indexed else 0x0F)
        if at < 0:
            return at
        self._is_indexed = is_indexed
        self._is_huge = False
        if index:
            self._name = self._entry(index)[0]
            self._wants = _VALUE
        else:
            self._wants = _NAME
        return at

    def _read_string(self, data: bytes, at: i64, end: i64) -> i64:
        is_huffman = data[at] & 0x80 != 0
        size, at = _integer(data, at, 0x7F)
        if at < 0:
            return at
        # Huffman's codes have 5 to 30 bits.
        if (size * 4 // 15 if is_huffman else size) > self._huge_bytes:
            # It fits neither the table nor the head, so no part of it is kept.
            self._is_huge = True
            self._skipped_bytes += size
            self._skip = size
            return at
        if at + size > end:
            return -1
        string = data[at : at + size]
        self._string(_from_huffman(string) if is_huffman else string)
        return at + size

    def _string(self, string: bytes) -> None:
        """Take a name or a value, which is whole."""
        if self._wants == _NAME:
            self._name = string
            self._wants = _VALUE
            return
        self._wants = _FIELD
        name = self._name
        if self._is_huge:
            if self._is_indexed:
                # RFC 7541, 4.4: an entry that is larger than the table empties it.
                self._has_changed = True
                self._entries.clear()
                self._table_bytes = 0
            self._has_fields = True
            return
        if self._is_indexed:
            self._has_changed = True
            self._entries.append((name, string))
            self._table_bytes += len(name) + len(string) + HEADER_BYTES_OVERHEAD
            self._evict()
        self._add(name, string)

    def _add(self, name: bytes, value: bytes) -> None:
        self._has_fields = True
        size: i64 = len(name) + len(value) + HEADER_BYTES_OVERHEAD
        self._size_bytes += size
        if self._size_bytes > self._header_bytes_max or len(self._fields) >= FIELDS_MAX:
            self._skipped_bytes += size
        else:
            self._fields.append((name, value))

    def _entry(self, index: i64) -> tuple[bytes, bytes]:
        if 0 < index <= _STATIC_LAST:
            return _STATIC_FIELDS[index - 1]
        place: i64 = len(self._entries) - (index - _STATIC_LAST)
        if index == 0 or place < 0:
            raise HeadError(f"nothing has index {index}")
        return self._entries[place]

    def _evict(self) -> None:
        gone: i64 = 0
        while self._table_bytes > self._table_bytes_max:
            name, value = self._entries[gone]
            self._table_bytes -= len(name) + len(value) + HEADER_BYTES_OVERHEAD
            gone += 1
        if gone:
            self._has_changed = True
            del self._entries[:gone]


def _integer(data: bytes, at: i64, mask: i64) -> tuple[i64, i64]:
    """Return an integer (RFC 7541, 5.1), and where it ends; -1 if it is not whole. Raises HeadError."""
    end: i64 = len(data)
    value: i64 = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift: i64 = 0
    while at < end:
        octet: i64 = data[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            if value > _INTEGER_MAX:
                break
            return value, at
        shift += 7
        if shift > _INTEGER_SHIFT_MAX:
            break
    else:
        return 0, -1
    raise HeadError("an integer has more than 31 bits")


# Huffman's code as an automaton that reads four bits at a time: a state is an inner node of the code's tree. By state and bits:
# the next state, and the symbol that has ended on the way, if any. No code has less than 5 bits, so at most one ends.
_INVALID: Final = 1 << 9
_NO_SYMBOL: Final = 1 << 8


def _automaton() -> tuple[list[int], list[int], list[bool]]:
    """Return next states, symbols, and by state whether a string may end there: after at most 7 bits that are all ones."""
    nodes: list[list[int]] = [[0, 0]]  # children: 0 for none, positive for an inner node, -symbol - 1 for a symbol
    for symbol, (code, bits) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = 0
        for place in range(bits - 1, 0, -1):
            bit = code >> place & 1
            if not nodes[node][bit]:
                nodes.append([0, 0])
                nodes[node][bit] = len(nodes) - 1
            node = nodes[node][bit]
        nodes[node][code & 1] = -symbol - 1
    states, symbols = [], []
    for start in range(len(nodes)):
        for nibble in range(16):
            node, found = start, _NO_SYMBOL
            for place in range(3, -1, -1):
                child = nodes[node][nibble >> place & 1]
                if child < 0:
                    # The end-of-string symbol must not occur in a string (RFC 7541, 5.2).
                    found = -child - 1 if -child - 1 < _NO_SYMBOL else _INVALID
                    child = 0
                node = child
            states.append(node)
            symbols.append(found)
    may_end = [False] * len(nodes)
    node = 0
    for _ in range(8):
        may_end[node] = True
        node = nodes[node][1]
    return states, symbols, may_end


_STATES, _SYMBOLS, _MAY_END = _automaton()


def _from_huffman(data: bytes) -> bytes:
    """Return the decoded string. Raises HeadError."""
    out = bytearray()
    states, symbols = _STATES, _SYMBOLS
    state: i64 = 0
    for octet in data:
        at: i64 = state << 4 | octet >> 4
        symbol: i64 = symbols[at]
        if symbol < _NO_SYMBOL:
            out.append(symbol)
        elif symbol == _INVALID:
            raise HeadError("a string has Huffman's end in it")
        state = states[at]
        at = state << 4 | octet & 15
        symbol = symbols[at]
        if symbol < _NO_SYMBOL:
            out.append(symbol)
        elif symbol == _INVALID:
            raise HeadError("a string has Huffman's end in it")
        state = states[at]
    if not _MAY_END[state]:
        raise HeadError("a string's last bits are not all ones")
    return bytes(out)


def encode(name: bytes, value: bytes) -> bytes:
    """Return one header, encoded. `name` is in lower case. Only the static table is used, and no entry is added."""
    known = _STATIC.get(name)
    if known is None:
        return b"\0" + _length(len(name)) + name + _length(len(value)) + value
    index, values = known
    exact = values.get(value)
    if exact is not None:
        return bytes([0x80 | exact])
    return (bytes([index]) if index < 15 else bytes([15, index - 15])) + _length(len(value)) + value


def encode_all(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a whole head, encoded."""
    return b"".join([encode(name, value) for name, value in headers])


def _length(size: int) -> bytes:
    """Return an integer with a 7-bit prefix whose first bit is 0: the string after it is not in Huffman's code."""
    if size < 127:
        return bytes([size])
    out = [127]
    size -= 127
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)
