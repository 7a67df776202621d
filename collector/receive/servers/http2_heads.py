"""Heads of HTTP/2: from HPACK to what a request asks for, and back (RFC 7541; RFC 9113, 8.2 and 8.3).

The law: a head that is not well-formed never becomes a request, and one connection's table never gets out of step. The same
block means the same as long as the table has not changed: clients repeat theirs, so what one means is kept.
"""

from typing import Any, Final

from hpack import Decoder
from hpack.table import HeaderTable

_STATIC: Final = HeaderTable.STATIC_TABLE_MAPPING
# What a header counts beside its name and value, RFC 9113.
HEADER_BYTES_OVERHEAD: Final = 32
# How many blocks' meanings a connection keeps, of what size at most.
_KEPT_MAX: Final = 32
_KEPT_BYTES_MAX: Final = 1024
# How a change of the table's size begins: three bits.
_TABLE_SIZE: Final = 0x20
# Headers that speak of a connection, and are not to be said in HTTP/2.
OF_CONNECTIONS: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_UPPER_CASE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class RequestHead:
    """A request's head. `is_malformed`: it breaks RFC 9113's rules, and the rest is not to be trusted."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        """As they came, the pseudo-headers with them."""
        self.method: bytes = b""
        self.path: bytes = b""
        self.authority: bytes = b""
        self.content_length: int = -1
        self.size_bytes: int = 0
        self.headers: Final[list[tuple[bytes, bytes]]] = []
        self.is_malformed: bool = False
        self.is_trailers: bool = True  # no pseudo-header is in it
        self.meaning: object | None = None  # what its reader makes of it, once
        self._read(headers)

    def _read(self, fields: list[tuple[bytes, bytes]]) -> None:
        seen: set[bytes] = set()
        for name, value in fields:
            self.size_bytes += len(name) + len(value) + HEADER_BYTES_OVERHEAD
            if name.startswith(b":"):
                if name in seen or self.headers:
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
            if not name or not _UPPER_CASE.isdisjoint(name) or name in OF_CONNECTIONS:
                self.is_malformed = True
            elif name == b"te":
                self.is_malformed |= value.lower() != b"trailers"
            elif name == b"content-length":
                if not value.isdigit() or self.content_length not in (-1, int(value)):
                    self.is_malformed = True
                else:
                    self.content_length = int(value)
            if b"\0" in value or b"\r" in value or b"\n" in value:
                self.is_malformed = True
            self.headers.append((name, value))
        if not self.is_trailers and self.method != b"CONNECT" and not {b":method", b":path", b":scheme"} <= seen:
            self.is_malformed = True


class HeadDecoder:
    """One for a connection."""

    def __init__(self, header_bytes_max: int) -> None:
        """`header_bytes_max`: of a head decoded; a larger one ends its connection, since the rest of it was not read."""
        self._decoder: Final = Decoder(max_header_list_size=header_bytes_max)
        # Told apart as objects, which compiled code's own tuples are not.
        self._entries: Final[Any] = self._decoder.header_table.dynamic_entries
        self._kept: Final[dict[bytes, RequestHead]] = {}

    def decode(self, block: bytes) -> RequestHead:
        """Raises hpack's HPACKError."""
        head = self._kept.get(block)
        if head is not None:
            return head
        entries = self._entries
        count = len(entries)
        newest: Any = entries[0] if count else None
        fields = self._decoder.decode(block, raw=True)
        head = RequestHead([(bytes(field[0]), bytes(field[1])) for field in fields])
        # What is added stands first. A change of the table's size may drop something at the other end.
        if len(entries) != count or (count and entries[0] is not newest) or (block and block[0] & 0xE0 == _TABLE_SIZE):
            self._kept.clear()
        elif len(block) <= _KEPT_BYTES_MAX:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[block] = head
        return head


def encode(name: bytes, value: bytes) -> bytes:
    """One header, `name` in lower case. Nothing of the table is used but what is always there, and nothing is put into it."""
    known = _STATIC.get(name)
    if known is None:
        return b"\0" + _length(len(name)) + name + _length(len(value)) + value
    index, values = known
    exact = values.get(value)
    if exact is not None:
        return bytes([0x80 | exact])
    return (bytes([index]) if index < 15 else bytes([15, index - 15])) + _length(len(value)) + value


def encode_all(headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole head."""
    return b"".join([encode(name, value) for name, value in headers])


def _length(size: int) -> bytes:
    """An integer of a 7-bit prefix whose first bit is 0: what follows is not Huffman's."""
    if size < 127:
        return bytes([size])
    out = [127]
    size -= 127
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)
