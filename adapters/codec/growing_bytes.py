"""Bytes that come in pieces and become one `bytes`, without a copy at its end.

What is large is moved once, into memory that the kernel gives only as far as it is written, in pages of 2 MiB where it can:
in pages of 4 KiB, 60 MiB cost 28 ms of faults, and so 6 ms.
"""

import ctypes
import mmap
from collections.abc import Callable
from io import BytesIO
from typing import Final

import cramjam

# Up to there memory comes from the heap, and stays with the process (collector/runtime/malloc.py).
_MOVED_BYTES: Final = 12 << 20
# glibc asks the kernel for what is at least as large, and has nothing to clear then.
_MAPPED_BYTES_MIN: Final = 33 << 20
_GROWTH: Final = 6
_ZEROS_BYTES: Final = 1 << 20
_MADV_HUGEPAGE: Final = getattr(mmap, "MADV_HUGEPAGE", 0)


class GrowingBytes:
    """Write pieces, then take `value`."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max`: they do not become more than that, and a piece."""
        self._bytes_max: Final = bytes_max
        self._content = BytesIO()
        self._moved_at_bytes = _MOVED_BYTES

    @property
    def size_bytes(self) -> int:
        """So many were written."""
        return self._content.tell()

    def write(self, piece: "bytes | cramjam.Buffer") -> None:
        """Add a piece."""
        size_bytes = self._content.tell() + len(piece)
        if size_bytes > self._moved_at_bytes:
            self._move(min(self._bytes_max + len(piece), _GROWTH * size_bytes))
        self._content.write(piece)

    def fill(self, size_bytes: int, write: Callable[[memoryview], object]) -> None:
        """Let that write so many bytes. They are all that there is."""
        if not self._move(size_bytes):
            # One write of all of them would keep the interpreter's lock for that time.
            for start in range(0, size_bytes, _ZEROS_BYTES):
                self._content.write(bytes(min(size_bytes - start, _ZEROS_BYTES)))
        with self._content.getbuffer() as buffer:
            write(buffer[:size_bytes])
        self._content.seek(size_bytes)

    def clear(self) -> None:
        """Forget what was written."""
        self._content = BytesIO()
        self._moved_at_bytes = _MOVED_BYTES

    def part(self, start: int, end: int) -> bytes:
        """Return a copy of a part."""
        with self._content.getbuffer() as buffer:
            return bytes(buffer[start : min(end, self._content.tell())])

    def value(self) -> bytes:
        """Return all of it. Nothing can be written then."""
        self._content.truncate()
        return self._content.getvalue()

    def _move(self, room_bytes: int) -> bool:
        """Move to memory that is given as it is written. Return whether there is such."""
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
    """Ask for large pages. Where there are none, nothing changes."""
    try:
        madvise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return  # another system
    if _MADV_HUGEPAGE:
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        size_bytes = (address + len(room) - start) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(size_bytes), ctypes.c_int(_MADV_HUGEPAGE))
