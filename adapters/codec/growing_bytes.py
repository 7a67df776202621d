"""Collect bytes that arrive in pieces into one `bytes`, without a copy at the end.

Large content is moved once, into memory that the kernel provides only as far as it is written, if possible in pages of 2 MiB.
For 60 MiB, the page faults cost 28 ms in pages of 4 KiB, and 6 ms in pages of 2 MiB.
"""

import ctypes
import mmap
from collections.abc import Callable
from io import BytesIO
from typing import Final

import cramjam

# Up to this size, memory comes from the heap and stays with the process (collector/runtime/malloc.py).
_MOVED_BYTES: Final = 12 << 20
# glibc asks the kernel for blocks of at least this size, and need not clear them.
_MAPPED_BYTES_MIN: Final = 33 << 20
_GROWTH: Final = 6
_ZEROS_BYTES: Final = 1 << 20
_MADV_HUGEPAGE: Final = getattr(mmap, "MADV_HUGEPAGE", 0)


class GrowingBytes:
    """A `GrowingBytes` collects pieces: `write` them, then take `value`."""

    def __init__(self, bytes_max: int) -> None:
        """Begin empty. All pieces together have at most `bytes_max` bytes, and a piece more."""
        self._bytes_max: Final = bytes_max
        self._content = BytesIO()
        self._moved_at_bytes = _MOVED_BYTES

    @property
    def size_bytes(self) -> int:
        """The number of bytes written."""
        return self._content.tell()

    def write(self, piece: "bytes | cramjam.Buffer") -> None:
        """Add a piece."""
        size_bytes = self._content.tell() + len(piece)
        if size_bytes > self._moved_at_bytes:
            self._move(min(self._bytes_max + len(piece), _GROWTH * size_bytes))
        self._content.write(piece)

    def fill(self, size_bytes: int, write: Callable[[memoryview], object]) -> None:
        """Let `write` fill a buffer of `size_bytes` bytes, which becomes the whole content."""
        if not self._move(size_bytes):
            # One write of all of them would keep the interpreter's lock for that time.
            for start in range(0, size_bytes, _ZEROS_BYTES):
                self._content.write(bytes(min(size_bytes - start, _ZEROS_BYTES)))
        with self._content.getbuffer() as buffer:
            write(buffer[:size_bytes])
        self._content.seek(size_bytes)

    def clear(self) -> None:
        """Remove all bytes."""
        self._content = BytesIO()
        self._moved_at_bytes = _MOVED_BYTES

    def part(self, start: int, end: int) -> bytes:
        """Return a copy of start:end, as far as it is written."""
        with self._content.getbuffer() as buffer:
            return bytes(buffer[start : min(end, self._content.tell())])

    def value(self) -> bytes:
        """Return all bytes. Nothing can be written afterwards."""
        self._content.truncate()
        return self._content.getvalue()

    def _move(self, room_bytes: int) -> bool:
        """Move to memory that the kernel provides as it is written. Return False if `room_bytes` is too small for that."""
        if room_bytes < _MAPPED_BYTES_MIN:
            return False
        self._moved_at_bytes = room_bytes
        moved = BytesIO(bytes(room_bytes))
        with moved.getbuffer() as room:
            _advise_huge_pages(room)
        with self._content.getbuffer() as content:
            moved.write(content[: self._content.tell()])
        self._content = moved
        return True


def _advise_huge_pages(room: memoryview) -> None:
    """Ask for large pages. If the system has none, nothing changes."""
    try:
        madvise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return  # another system
    if _MADV_HUGEPAGE:
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        size_bytes = (address + len(room) - start) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(size_bytes), ctypes.c_int(_MADV_HUGEPAGE))
