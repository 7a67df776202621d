"""Find chunks in the pages of a damaged SQLite file and its write-ahead log, even those that SQLite itself can't read.

SQLite stops at the first frame of a write-ahead log that does not fit its checksum, and at a page that it can't follow. The
rows behind these still exist, and the checksums of their messages prove them. The format is that of
sqlite.org/fileformat2.html: table leaf pages, overflow pages, frames.

Invariants:
1. A chunk is returned only if a message in it fits its checksum, or if it was written without checksums and its lengths add
   up (test_only_what_its_checksum_proves_is_carved).
2. A damaged copy of a chunk is returned only after the whole copies (test_a_whole_copy_of_a_row_is_preferred).
3. A partition's position is returned only if it fits its checksum (test_positions_are_carved_where_the_witness_is_gone).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Self

from collector.broker.local_log.chunks import OFFSET_BITS, split
from collector.broker.local_log.plan import PartitionHead
from collector.broker.local_log.schema import PAGE_BYTES
from collector.broker.local_log.wal_index import FRAME_BYTES, WAL_HEADER_BYTES

_FILE_HEADER_BYTES: Final = 100
_WAL_MAGIC: Final = b"\x37\x7f\x06"  # and 82 or 83, for the order of bytes in checksums
_FRAME_HEADER_BYTES: Final = 24
_FRAMES_ASKED: Final = 1_000
_TABLE_LEAF: Final = 0x0D
_PAYLOAD_BYTES_MAX: Final = 1 << 31
# Bytes of an integer by its type in a row.
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
# How many bytes of a row stay in its leaf page (fileformat2.html, 1.6).
_LOCAL_MAX: Final = PAGE_BYTES - 35
_LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23


class Carved(NamedTuple):
    """A chunk with the columns of its row."""

    topic: str
    key: int
    lengths: bytes
    payload: bytes
    checksums: bytes | None


def carve(database: Path | None, wals: Sequence[Path], topics: Mapping[int, str]) -> Iterator[Carved]:
    """Yield the chunks that are found: whole chunks first, then chunks with damaged messages, the newest first of each. A chunk
    may come more than once. `topics` is by partition id. Raises OSError."""
    with _Files(database, wals) as files:
        damaged: list[tuple[int, int]] = []  # the leaf's number and the row's place: chunks themselves may be many
        for number, (page, moment) in enumerate(files.leaves()):
            for at in _cells(page):
                chunk = _chunk(files, page, at, moment, topics)
                if chunk is not None and all(message is not None for message in split(*chunk)):
                    yield chunk
                elif chunk is not None:
                    damaged.append((number, at))
        for number, at in damaged:
            page, moment = files.leaf(number)
            chunk = _chunk(files, page, at, moment, topics)
            if chunk is not None:
                yield chunk


def carve_heads(database: Path | None, wals: Sequence[Path]) -> dict[str, PartitionHead]:
    """Return the farthest position that is found for each topic, without its end. Raises OSError."""
    heads: dict[str, PartitionHead] = {}
    with _Files(database, wals) as files:
        for page, moment in files.leaves():
            for at in _cells(page):
                found = _head(files, page, at, moment)
                if found is not None:
                    topic, head = found
                    known = heads.get(topic)
                    if known is None or _progress(head) > _progress(known):
                        heads[topic] = head
    return heads


def _progress(head: PartitionHead) -> tuple[int, bool, int, int]:
    """Return a value that only grows: an intent follows its commit, and a deeper intent another."""
    return head.committed, head.intent is not None, head.intent_depth, head.floor


def _salts(wal: int, frames: Sequence[int]) -> bytes:
    """Return the salts of the last turn of a write-ahead log. Its header and each frame of that turn have them, and any of
    these may be damaged. `frames` are the offsets of the frames."""
    header_salts = os.pread(wal, 8, 16) if os.pread(wal, 3, 0) == _WAL_MAGIC else b""
    found = [os.pread(wal, 8, at + 8) for at in frames[:_FRAMES_ASKED]]
    if header_salts in found:
        return header_salts
    repeated = (salts for salts, following in pairwise(found) if salts == following and any(salts))
    return next(repeated, found[0] if found else b"")


class _Files:
    """Reads pages by their number, as of a moment: -1 is the database file, other moments are frames in their order."""

    def __init__(self, database: Path | None, wals: Sequence[Path]) -> None:
        self._database: Final = os.open(database, os.O_RDONLY) if database is not None and database.exists() else None
        self._wals: Final = [os.open(wal, os.O_RDONLY) for wal in wals if wal.exists()]
        self._frames: Final[list[tuple[int, int]]] = []  # descriptor and offset of the page
        self._commits: Final[list[int]] = []  # the frame that ends the transaction of each frame
        self._versions: Final[dict[int, list[int]]] = {}
        for wal in self._wals:
            self._index(wal)

    def _index(self, wal: int) -> None:
        frames = range(WAL_HEADER_BYTES, os.fstat(wal).st_size - FRAME_BYTES + 1, FRAME_BYTES)
        salts = _salts(wal, frames)
        open_from = len(self._frames)
        for at in frames:
            header = os.pread(wal, _FRAME_HEADER_BYTES, at)
            if header[8:16] != salts:
                continue  # the frame is of an earlier turn of the write-ahead log, or damaged
            number = len(self._frames)
            self._frames.append((wal, at + _FRAME_HEADER_BYTES))
            self._commits.append(number)
            self._versions.setdefault(int.from_bytes(header[:4]), []).append(number)
            if header[4:8] != b"\0\0\0\0":  # the size of the database after a commit
                self._commits[open_from:] = [number] * (number + 1 - open_from)
                open_from = number + 1

    def leaves(self) -> Iterator[tuple[bytes, int]]:
        """Yield every page and its moment, the newest first."""
        pages = 0 if self._database is None else -(-os.fstat(self._database).st_size // PAGE_BYTES)
        for number in range(len(self._frames) + pages):
            yield self.leaf(number)

    def leaf(self, number: int) -> tuple[bytes, int]:
        """Return a page and its moment, by its number in the order of `leaves`."""
        frame = len(self._frames) - 1 - number
        if frame >= 0:
            wal, at = self._frames[frame]
            return os.pread(wal, PAGE_BYTES, at), self._commits[frame]
        if self._database is None:
            return b"", -1
        return os.pread(self._database, PAGE_BYTES, (-1 - frame) * PAGE_BYTES), -1

    def page(self, page_number: int, moment: int) -> bytes:
        for number in reversed(self._versions.get(page_number, ())):
            if number <= moment:
                wal, at = self._frames[number]
                return os.pread(wal, PAGE_BYTES, at)
        if self._database is None or page_number == 0:
            return b""
        return os.pread(self._database, PAGE_BYTES, (page_number - 1) * PAGE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._database, *self._wals):
            if descriptor is not None:
                os.close(descriptor)


def _cells(page: bytes) -> Iterator[int]:
    """Yield where the rows of a leaf page begin."""
    if len(page) < PAGE_BYTES or page[0] != _TABLE_LEAF:
        return
    for number in range(min(int.from_bytes(page[3:5]), PAGE_BYTES // 4)):
        yield int.from_bytes(page[8 + 2 * number : 10 + 2 * number])


def _chunk(files: _Files, page: bytes, at: int, moment: int, topics: Mapping[int, str]) -> Carved | None:
    try:
        size, at = _varint(page, at)
        key, at = _varint(page, at)
        topic = topics.get(key >> OFFSET_BITS)
        if topic is None or size > _PAYLOAD_BYTES_MAX:
            return None
        record = _record(files, page, at, size, moment)
        columns = None if record is None else _columns(record)
    except IndexError:  # past the end of the page, or of the cell
        return None
    if columns is None:
        return None
    chunk = Carved(topic, key, *columns)
    return chunk if any(message is not None for message in split(*chunk)) else None


def _head(files: _Files, page: bytes, at: int, moment: int) -> tuple[str, PartitionHead] | None:
    try:
        size, at = _varint(page, at)
        id_, at = _varint(page, at)
        record = None if size > PAGE_BYTES else _record(files, page, at, size, moment)
        values = [] if record is None else _values(record)
    except IndexError:
        return None
    match values:
        case [None, str(topic), int(committed), int() | None as intent, str() | None as log, depth, floor, int(checksum)]:
            if isinstance(depth, int | None) and isinstance(floor, int | None):
                head = PartitionHead(id_, committed, max(committed, floor or 0), intent, log or "", depth or 0, floor or 0)
                if head.checksum(topic) == checksum:
                    return topic, head
    return None


def _record(files: _Files, page: bytes, at: int, size: int, moment: int) -> bytes | None:
    """Return the row's bytes, from its leaf and from its overflow pages; None if these end too early."""
    if size <= _LOCAL_MAX:
        return page[at : at + size]
    local = _LOCAL_MIN + (size - _LOCAL_MIN) % (PAGE_BYTES - 4)
    if local > _LOCAL_MAX:
        local = _LOCAL_MIN
    parts = [page[at : at + local]]
    left = size - local
    next_ = int.from_bytes(page[at + local : at + local + 4])
    while left > 0:
        overflow = files.page(next_, moment)
        if len(overflow) < PAGE_BYTES:
            return None
        part = overflow[4 : 4 + left]
        parts.append(part)
        left -= len(part)
        next_ = int.from_bytes(overflow[:4])
    return b"".join(parts)


def _columns(record: bytes) -> tuple[bytes, bytes, bytes | None] | None:
    """Return lengths, payload and checksums; None if it is not a row of chunks."""
    header_bytes, at = _varint(record, 0)
    types: list[int] = []
    while at < header_bytes:
        type_, at = _varint(record, at)
        types.append(type_)
    # The key is the row's id, so its column is NULL; even numbers from 12 on are blobs.
    if len(types) not in (3, 4) or types[0] != 0 or any(type_ < 12 or type_ % 2 for type_ in types[1:3]):
        return None
    ends = [header_bytes]
    for type_ in types[1:]:
        ends.append(ends[-1] + (type_ - 12) // 2 if type_ >= 12 else ends[-1])
    lengths, payload = record[ends[0] : ends[1]], record[ends[1] : ends[2]]
    return lengths, payload, record[ends[2] : ends[3]] if len(types) == 4 and types[3] >= 12 else None


def _values(record: bytes) -> list[int | str | bytes | None]:
    """Return the columns of a row that has only small columns (fileformat2.html, 2.1). Raises IndexError."""
    header_bytes, at = _varint(record, 0)
    values: list[int | str | bytes | None] = []
    end = header_bytes
    while at < header_bytes:
        type_, at = _varint(record, at)
        start, end = end, end + (_INTEGER_BYTES.get(type_, 0) if type_ < 12 else (type_ - 12) // 2)
        content = record[start:end]
        if type_ in (8, 9):
            values.append(type_ - 8)
        elif type_ >= 12:
            values.append(content.decode(errors="replace") if type_ % 2 else content)
        else:
            values.append(int.from_bytes(content, signed=True) if type_ in _INTEGER_BYTES else None)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the value and where it ends. Raises IndexError."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9
