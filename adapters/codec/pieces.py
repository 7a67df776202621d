"""Bodies that are counted while they come: what holds too much is known before all of it is decompressed."""

from typing import Final

from mypy_extensions import i64

from adapters.errors import RequestRefused


class PiecesCount:
    """Counts what the pieces of one body hold. One of no more than `free_bytes` can't hold too much."""

    def __init__(self, free_bytes: i64, telling_bytes: i64) -> None:
        self.free_bytes: Final[i64] = free_bytes
        self.telling_bytes: Final[i64] = telling_bytes
        """So many tell of most of those that hold too much."""
        self.size_bytes: i64 = 0
        """Of the pieces so far."""
        self.beginning: bytes = b""
        """The first of them."""
        self.is_exceeded: bool = False
        """Whether they hold too much."""
        self.is_sure: bool = True
        """Whether all that came was counted."""

    def take(self, piece: bytes) -> None:
        """Count the next piece. Raises RequestRefused where there is too much."""
        if self.size_bytes == 0:
            self.beginning = piece
        self.size_bytes += len(piece)
        if self._exceeds(piece):
            self.is_exceeded = True
            raise self._refusal()

    def pass_over(self, size_bytes: i64) -> bool:
        """Pass over so many bytes that come next, where nothing in them counts whatever they are. Return whether that is so;
        else they are the next piece."""
        if self.size_bytes == 0 or not self._passes_over(size_bytes):
            return False
        self.size_bytes += size_bytes
        return True

    def _passes_over(self, size_bytes: i64) -> bool:  # noqa: ARG002  # for those that know
        """Do so where that can be known."""
        return False

    def _exceeds(self, piece: bytes) -> bool:
        """Count the next piece. Return whether there is too much."""
        raise NotImplementedError

    def _refusal(self) -> RequestRefused:
        """Return the refusal of a body that holds too much."""
        raise NotImplementedError
