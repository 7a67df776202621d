"""The replacements within a stretch of the body: in order, none touching another. The rest is copied unchanged.

The scan that finds bytes that are not normal also notes their normal form, once, so nothing is walked twice. A message whose
content changes its size has a patch of its length, placed before those of its content.

There are at most `patches_max`. If a stretch needs more, `is_full` says so, and no patch may be used.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import length_of

# An item has at most so many where it fits the largest message that is usual: each replaces two bytes of it at least.
PATCHES_MAX: Final = 1 << 18


class _Patch:
    """These bytes in place of those at start:end."""

    def __init__(self) -> None:
        self.start: i64 = 0
        self.end: i64 = 0
        self.replacement: bytes = b""


class Patches:
    """Those of one stretch of `buffer`. The objects are used again and again: a request makes no more of them than it needs at
    once."""

    def __init__(self, buffer: bytes, patches_max: int = PATCHES_MAX) -> None:
        self.buffer: Final = buffer
        self.count: i64 = 0
        self.last_cut: i64 = -1  # which of them only takes away, if the last one does
        self.delta: i64 = 0  # how much longer all of it becomes
        self.patches_max: i64 = patches_max
        self.is_full: bool = False
        self._spare: Final = _Patch()
        self._made: Final[list[_Patch]] = []

    def clear(self) -> None:
        self.count = 0
        self.last_cut = -1
        self.delta = 0
        self.is_full = False

    def replace(self, start: i64, end: i64, replacement: bytes) -> None:
        """Behind all that there are."""
        patch = self._next()
        patch.start = start
        patch.end = end
        patch.replacement = replacement
        self.delta += len(replacement) - (end - start)

    def open(self) -> i64:
        """A place for a message's length, before what its content may need. Then `close` or `cut`."""
        place: i64 = self.count
        self._next()
        return place

    def close(self, place: i64, delta: i64, length_at: i64, start: i64, end: i64) -> None:
        """The message at start:end was scanned, its length is before it, from `length_at`. `delta`: what it was before."""
        if self.is_full:
            return
        if self.count == place + 1:
            self.count = place  # nothing in it is replaced
            return
        patch = self._made[place]
        patch.start = length_at
        if self.delta == delta:
            patch.end = length_at  # it is as long as it was
            patch.replacement = b""
            return
        patch.end = start
        patch.replacement = length_of(end - start + self.delta - delta)
        self.delta += len(patch.replacement) - (start - length_at)

    def cut(self, place: i64, delta: i64, start: i64, end: i64, replacement: bytes) -> None:
        """Instead of `close`: replace all of start:end. `delta`: as above."""
        if self.is_full:
            return
        self.count = place
        self.delta = delta
        if not replacement and self.last_cut == place - 1 and place > 0 and self._made[place - 1].end == start:
            # One patch for all that goes in a row: of millions, each would be an object.
            self._made[place - 1].end = end
            self.delta -= end - start
            return
        self.replace(start, end, replacement)
        self.last_cut = place
        if replacement:
            self.last_cut = -1

    def write(self, writer: BytesWriter, start: i64, end: i64) -> None:
        """The stretch as it is with all patches. It begins and ends outside of them."""
        buffer = self.buffer
        index: i64 = 0
        while index < self.count:
            patch = self._made[index]
            index += 1
            if patch.start < start or patch.end > end:
                continue
            if patch.start > start:
                writer.write(buffer[start : patch.start])
            writer.write(patch.replacement)
            start = patch.end
        if start < end:
            writer.write(buffer[start:end])

    def _next(self) -> _Patch:
        place: i64 = self.count
        if place >= self.patches_max:
            self.is_full = True
            return self._spare
        self.count = place + 1
        if place == len(self._made):
            patch = _Patch()
            self._made.append(patch)
            return patch
        return self._made[place]
