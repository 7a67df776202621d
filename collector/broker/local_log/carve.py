"""Find chunks in the pages of a damaged SQLite file and its write-ahead log, whatever SQLite itself makes of them.

SQLite stops at the first frame of a write-ahead log that does not fit its checksum, and at a page that it can't follow. The
rows behind these are still there, and the checksums of their messages prove them. The format is that of
sqlite.org/fileformat2.html: table leaf pages, overflow pages, frames.

Invariants:
1. A chunk is returned only where a message in it fits its checksum, or where it was written without checksums and its lengths
   add up (test_only_what_its_checksum_proves_is_carved).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from collector.broker.local_log.chunks import OFFSET_BITS, split
from collector.broker.local_log.schema import PAGE_BYTES

_FILE_HEADER_BYTES: Final = 100
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_FRAME_BYTES: Final = _FRAME_HEADER_BYTES + PAGE_BYTES
_TABLE_LEAF: Final = 0x0D
_PAYLOAD_BYTES_MAX: Final = 1 << 31
# What of a row stays in its leaf page (fileformat2.html, 1.6).
_LOCAL_MAX: Final = PAGE_BYTES - 35
_LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23


class Carved(NamedTuple):
    """A chunk as its row has it."""

    topic: str
    key: int
    lengths: bytes
    payload: bytes
    checksums: bytes | None


def carve(database: Path | None, wals: Sequence[Path], topics: Mapping[int, str]) -> Iterator[Carved]:
    """Yield what is found, the newest first; a chunk may come more than once. `topics`: by partition id. Raises OSError."""
    with _Files(database, wals) as files:
        for page, moment in files.leaves():
            yield from _chunks(files, page, moment, topics)


class _Files:
    """Pages by their number, as they were at a moment: -1 is the database file, others the frames in their order."""

    def __init__(self, database: Path | None, wals: Sequence[Path]) -> None:
        self._database: Final = os.open(database, os.O_RDONLY) if database is not None and database.exists() else None
        self._wals: Final = [os.open(wal, os.O_RDONLY) for wal in wals if wal.exists()]
        self._frames: Final[list[tuple[int, int]]] = []  # descriptor and offset of the page
        self._commits: Final[list[int]] = []  # the frame that ends the transaction of each frame
        self._versions: Final[dict[int, list[int]]] = {}
        for wal in self._wals:
            self._index(wal)

    def _index(self, wal: int) -> None:
        size = os.fstat(wal).st_size
        salts = os.pread(wal, 8, _WAL_HEADER_BYTES + 8)  # the first frame's: the header's own may be what is damaged
        open_from = len(self._frames)
        for at in range(_WAL_HEADER_BYTES, size - _FRAME_BYTES + 1, _FRAME_BYTES):
            header = os.pread(wal, _FRAME_HEADER_BYTES, at)
            if header[8:16] != salts:
                continue  # of an earlier turn of the write-ahead log, or damaged
            number = len(self._frames)
            self._frames.append((wal, at + _FRAME_HEADER_BYTES))
            self._commits.append(number)
            self._versions.setdefault(int.from_bytes(header[:4]), []).append(number)
            if header[4:8] != b"\0\0\0\0":  # the size of the database after a commit
                self._commits[open_from:] = [number] * (number + 1 - open_from)
                open_from = number + 1

    def leaves(self) -> Iterator[tuple[bytes, int]]:
        for number in range(len(self._frames) - 1, -1, -1):
            wal, at = self._frames[number]
            yield os.pread(wal, PAGE_BYTES, at), self._commits[number]
        if self._database is not None:
            for at in range(0, os.fstat(self._database).st_size, PAGE_BYTES):
                yield os.pread(self._database, PAGE_BYTES, at), -1

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


def _chunks(files: _Files, page: bytes, moment: int, topics: Mapping[int, str]) -> Iterator[Carved]:
    if len(page) < PAGE_BYTES or page[0] != _TABLE_LEAF:
        return
    cells = int.from_bytes(page[3:5])
    for number in range(min(cells, PAGE_BYTES // 4)):
        at = int.from_bytes(page[8 + 2 * number : 10 + 2 * number])
        try:
            chunk = _chunk(files, page, at, moment, topics)
        except IndexError:  # past the end of the page, or of what a cell has
            continue
        if chunk is not None:
            yield chunk


def _chunk(files: _Files, page: bytes, at: int, moment: int, topics: Mapping[int, str]) -> Carved | None:
    size, at = _varint(page, at)
    key, at = _varint(page, at)
    topic = topics.get(key >> OFFSET_BITS)
    if topic is None or size > _PAYLOAD_BYTES_MAX:
        return None
    record = _record(files, page, at, size, moment)
    if record is None:
        return None
    columns = _columns(record)
    if columns is None:
        return None
    lengths, payload, checksums = columns
    if not any(message is not None for message in split(topic, key, lengths, payload, checksums)):
        return None
    return Carved(topic, key, lengths, payload, checksums)


def _record(files: _Files, page: bytes, at: int, size: int, moment: int) -> bytes | None:
    """Return the row's bytes, from its leaf and from its overflow pages; None where these end too early."""
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
    """Return lengths, payload and checksums; None where it is not a row of chunks."""
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


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the value and where it ends. Raises IndexError."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9
