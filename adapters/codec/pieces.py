"""Count bodies while they arrive, so that one that holds too much is refused before all of it is decompressed."""

from typing import Final

from mypy_extensions import i64

from adapters.errors import RequestRefused


class PiecesCount:
    """A `PiecesCount` counts the contents of one body's pieces. A body of at most `free_bytes` can't hold too much."""

    def __init__(self, free_bytes: i64, telling_bytes: i64) -> None:
        self.free_bytes: Final[i64] = free_bytes
        self.telling_bytes: Final[i64] = telling_bytes
        """After this many bytes, most of the bodies that hold too much are recognized."""
        self.size_bytes: i64 = 0
        """The size of the pieces so far."""
        self.beginning: bytes = b""
        """The first piece."""
        self.is_exceeded: bool = False
        """Whether the pieces hold too much."""
        self.is_sure: bool = True
        """Whether all pieces so far were counted completely."""

    def take(self, piece: bytes) -> None:
        """Count the next piece. Raises RequestRefused if the body holds too much."""
        if self.size_bytes == 0:
            self.beginning = piece
        self.size_bytes += len(piece)
        if self._exceeds(piece):
            self.is_exceeded = True
            raise self._refusal()

    def pass_over(self, size_bytes: i64) -> bool:
        """Pass over the next `size_bytes` bytes if nothing in them can count. Return whether that was done; if not, the caller
        passes them to `take`."""
        if self.size_bytes == 0 or not self._passes_over(size_bytes):
            return False
        self.size_bytes += size_bytes
        return True

    def _passes_over(self, size_bytes: i64) -> bool:  # noqa: ARG002  # for those that know
        """Pass over the next bytes if it is known that nothing in them counts; return whether that was done."""
        return False

    def _exceeds(self, piece: bytes) -> bool:
        """Count the next piece. Return whether the body holds too much."""
        raise NotImplementedError

    def _refusal(self) -> RequestRefused:
        """Return the refusal of a body that holds too much."""
        raise NotImplementedError
