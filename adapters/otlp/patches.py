"""Record the replacements within a part of the body, in order and without overlaps. The rest is copied unchanged.

The scan that finds bytes that are not normal also notes their normal form, so nothing is scanned twice. A message whose
content changes its size has a patch of its length, placed before those of its content.

There are at most `patches_max` patches. If a part needs more, `is_full` is set, and no patch may be used.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import length_of

# An item that fits the largest usual message has at most this many patches, since each replaces at least two bytes.
PATCHES_MAX: Final = 1 << 18


class _Patch:
    """A `_Patch` replaces start:end by other bytes."""

    def __init__(self) -> None:
        self.start: i64 = 0
        self.end: i64 = 0
        self.replacement: bytes = b""


class Patches:
    """A `Patches` holds the patches of one part of `buffer`. The patch objects are reused, so a request creates no more than it
    needs at once."""

    def __init__(self, buffer: bytes, patches_max: int = PATCHES_MAX) -> None:
        self.buffer: Final = buffer
        self.count: i64 = 0
        self.last_cut: i64 = -1  # the index of the last patch, if that only removes bytes
        self.delta: i64 = 0  # by how much the whole part becomes longer
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
        """Add a patch behind all others."""
        patch = self._next()
        patch.start = start
        patch.end = end
        patch.replacement = replacement
        self.delta += len(replacement) - (end - start)

    def open(self) -> i64:
        """Reserve a patch for a message's length, before the patches of its content. Then call `close` or `cut`."""
        place: i64 = self.count
        self._next()
        return place

    def close(self, place: i64, delta: i64, length_at: i64, start: i64, end: i64) -> None:
        """End the message at start:end, whose length is at length_at:start. `delta` is the delta before `open`."""
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
        """Replace all of start:end, instead of `close`. `delta` is the delta before `open`."""
        if self.is_full:
            return
        self.count = place
        self.delta = delta
        if not replacement and self.last_cut == place - 1 and place > 0 and self._made[place - 1].end == start:
            # One patch for adjacent cuts: there may be millions, and each patch is an object.
            self._made[place - 1].end = end
            self.delta -= end - start
            return
        self.replace(start, end, replacement)
        self.last_cut = place
        if replacement:
            self.last_cut = -1

    def write(self, writer: BytesWriter, start: i64, end: i64) -> None:
        """Write start:end with all its patches. It must begin and end outside of patches."""
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
