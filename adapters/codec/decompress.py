"""Decompress bodies by their Content-Encoding: gzip, deflate, zstd, snappy's block format.

A body is decompressed as a whole or refused: truncated, corrupt and trailing bytes are errors. Formats: RFC 1952, RFC 1950,
RFC 8878, google/snappy's format_description.txt. Deflate is RFC 1950's; RFC 9110 mentions senders that leave out its frame,
and send RFC 1951's.

Invariants:
1. Neither output nor memory exceeds the limit by more than a window or a chunk. A body that announces too large a size is
   refused at once; the other formats are decompressed in chunks (test_a_bomb_costs_no_more_than_the_limit,
   test_what_snappy_announces_is_checked_before_anything_is_allocated,
   test_what_zstd_announces_is_checked_before_anything_is_decompressed).
2. A truncated body and bytes after the content are refused (test_truncated_bodies_are_refused,
   test_what_follows_the_content_is_refused).
3. A body has at most 1,000 streams, and in snappy's framed format at most 1,000 chunks of less than 64 bytes, since each costs
   more than its bytes do (test_snappys_short_chunks_are_bounded).
"""

import sys
from collections.abc import Generator
from functools import partial
from typing import Final

import cramjam
from zlib_ng import zlib_ng

from adapters.codec.growing_bytes import GrowingBytes
from adapters.codec.snappy_block import announced_bytes, first_elements
from adapters.errors import INVALID_COMPRESSION, PAYLOAD_TOO_LARGE, RequestRefused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK_BYTES: Final = 1 << 20
_SLICE_BYTES: Final = 1 << 18
# Each stream costs a decompressor: millions of empty ones would fit into a body.
_STREAMS_MAX: Final = 1000
_ZLIB_HEAD_DIVISOR: Final = 31
_GZIP_WINDOW_BITS: Final = 16 + zlib_ng.MAX_WBITS
# RFC 9659: a zstd content coding's window is at most 8 MiB.
_ZSTD_WINDOW_LOG_MAX: Final = 23
_ZSTD_HEAD_BYTES_MAX: Final = 18
# A copy of 64 bytes takes three.
_SNAPPY_RATIO_MAX: Final = 22
# A beginning is decompressed twice, so this is only done if at least this much more follows.
_SNAPPY_REST_BYTES_MIN: Final = 4 << 20
_SNAPPY_FRAMED: Final = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_CHUNK_HEAD_BYTES: Final = 4
# Senders of many chunks fill each. A chunk costs as much as decompressing some hundred bytes, and 14 million fit into a body.
_SNAPPY_SHORT_CHUNK_BYTES: Final = 64
_SNAPPY_SHORT_CHUNKS_MAX: Final = 1000
# A slice becomes at most 22 times as many bytes, and a chunk more.
_SNAPPY_SLICE_BYTES: Final = 64 << 10


def decompress(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """Return the content of `body`, at most `bytes_max` bytes. `encoding` is identity, gzip, deflate, zstd, snappy (the block
    format) or snappy_of_any_format (also the framed format).

    Raises RequestRefused: PAYLOAD_TOO_LARGE, INVALID_COMPRESSION.
    """
    work = Decompression(body, encoding, bytes_max)
    while not work.step():
        pass
    return work.content


# Yields the number of bytes so far; returns all of them.
_Steps = Generator[int, None, bytes]
_ALL: Final = 1 << 60


class Decompression:
    """A `Decompression` decompresses in steps: call `step` until it returns True; `content` is complete then."""

    def __init__(self, body: bytes, encoding: str, bytes_max: int, beginning_bytes: int = _ALL) -> None:
        """Prepare; nothing is decompressed yet. The first `beginning_bytes` of the content, and a megabyte, can be read before
        the rest; of snappy's block format only if the content is much longer than that."""
        self.content = b""
        # The bytes that are in memory, or will be after the next step.
        self.size_bytes = 0
        self._out: Final = _Output(encoding, bytes_max)
        self._steps: Final = _steps(body, encoding, self._out, beginning_bytes + _CHUNK_BYTES)

    def step(self) -> bool:
        """Decompress about a megabyte more, in any thread; snappy's block format at once, after a step that reads its announced
        size. Raises RequestRefused."""
        try:
            self.size_bytes = next(self._steps)
        except StopIteration as done:
            self.content = done.value
            self.size_bytes = len(self.content)
            return True
        return False

    @property
    def ready_bytes(self) -> int:
        """The number of bytes of the content that `piece` can return."""
        return self._out.size_bytes

    def piece(self, start: int) -> bytes:
        """Return up to a megabyte of the content from `start` on."""
        return self._out.part(start, start + _CHUNK_BYTES)


def _steps(body: bytes, encoding: str, out: "_Output", beginning_bytes: int) -> _Steps:
    if encoding == "identity":
        return _identity(body, out.bytes_max)
    if encoding == "gzip":
        return _inflate(body, encoding, _GZIP_WINDOW_BITS, out)
    if encoding == "deflate":
        window_bits = zlib_ng.MAX_WBITS if _has_zlib_head(body) else -zlib_ng.MAX_WBITS
        return _inflate(body, encoding, window_bits, out)
    if encoding == "zstd":
        return _unzstd(body, out)
    if encoding == "snappy":
        return _unsnappy(body, out, beginning_bytes)
    if encoding == "snappy_of_any_format":
        if body.startswith(_SNAPPY_FRAMED):
            return _unsnappy_frames(body, out)
        return _unsnappy(body, out, beginning_bytes)
    raise ValueError(f"unknown encoding {encoding!r}")


def _has_zlib_head(body: bytes) -> bool:
    """Return whether a body begins with RFC 1950's header. No RFC 1951 encoder writes that: its padding would not be zeros."""
    return len(body) > 1 and body[0] & 0xF == zlib_ng.DEFLATED and int.from_bytes(body[:2]) % _ZLIB_HEAD_DIVISOR == 0


def _identity(body: bytes, bytes_max: int) -> _Steps:
    if len(body) > bytes_max:
        raise _too_large(len(body), "identity", bytes_max)
    yield len(body)
    return body


def _inflate(body: bytes, encoding: str, window_bits: int, out: "_Output") -> _Steps:
    """Decompress one or more consecutive members (RFC 1952). `window_bits` is zlib's number for the format."""
    source = _Source(body, encoding)
    for _ in range(_STREAMS_MAX):
        member = zlib_ng.decompressobj(window_bits)
        try:
            while not member.eof:
                data = source.next()
                chunk = member.decompress(data, out.next_bytes())
                source.put_back(member.unused_data if member.eof else member.unconsumed_tail)
                if not data and not chunk:
                    raise source.invalid("truncated")
                out.take(chunk)
                yield out.size_bytes
        except zlib_ng.error as error:  # type: ignore[misc]  # its stub has an instance
            raise source.invalid(str(error)) from error
        if source.at_end():
            return out.value()
    raise source.invalid(f"more than {_STREAMS_MAX} members")


def _unzstd(body: bytes, out: "_Output") -> _Steps:
    """Decompress one or more consecutive frames. Some may be skippable frames."""
    announced = _zstd_announced_bytes(body)
    if announced > out.bytes_max:
        raise _too_large(announced, "zstd", out.bytes_max)
    source = _Source(body, "zstd")
    for _ in range(_STREAMS_MAX):
        frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX})
        try:
            while not frame.eof:
                data = source.next() if frame.needs_input else b""
                chunk = frame.decompress(data, out.next_bytes())
                if not data and not chunk and frame.needs_input and not frame.eof:
                    raise source.invalid("truncated")
                out.take(chunk)
                yield out.size_bytes
        except zstd.ZstdError as error:
            raise source.invalid(str(error)) from error
        source.put_back(frame.unused_data)
        if source.at_end():
            return out.value()
    raise source.invalid(f"more than {_STREAMS_MAX} frames")


def _zstd_announced_bytes(body: bytes) -> int:
    """Return the size that the first frame announces; 0 if it announces none or is invalid, which decompressing finds out."""
    try:
        return zstd.get_frame_info(body[:_ZSTD_HEAD_BYTES_MAX]).decompressed_size or 0
    except zstd.ZstdError:
        return 0


def _unsnappy(body: bytes, out: "_Output", beginning_bytes: int) -> _Steps:
    if body.startswith(_SNAPPY_FRAMED):
        raise _invalid(body, "snappy", "the framed format; the block format is what remote write has")
    # Snappy announces its size: check it first, or 1 KB can become 4 GB.
    announced, start = announced_bytes(body)
    if start == 0:
        raise _invalid(body, "snappy", "no size announced")
    if announced > out.bytes_max:
        raise _too_large(announced, "snappy", out.bytes_max)
    if announced > len(body) * _SNAPPY_RATIO_MAX:
        raise _invalid(body, "snappy", f"{announced} bytes announced, more than it can hold")
    yield announced
    try:
        if announced > beginning_bytes + _SNAPPY_REST_BYTES_MIN:
            end, size_bytes = first_elements(body, start, beginning_bytes)
            if end:
                out.take(cramjam.snappy.decompress_raw(_varint(size_bytes) + body[start:end]))
                yield announced
                out.clear()
        # Into the buffer that is returned: a second buffer would double the memory.
        out.fill(announced, partial(cramjam.snappy.decompress_raw_into, body))
    except cramjam.DecompressionError as error:
        raise _invalid(body, "snappy", str(error)) from error
    return out.value()


def _unsnappy_frames(body: bytes, out: "_Output") -> _Steps:
    """Decompress the framed format, some chunks at a time. Each chunk has at most 64 KiB of content."""
    end = len(body)
    position = start = len(_SNAPPY_FRAMED)
    short_chunks = 0
    while True:
        if position - start >= _SNAPPY_SLICE_BYTES or position == end:
            try:
                out.take(cramjam.snappy.decompress(_SNAPPY_FRAMED + body[start:position]))
            except cramjam.DecompressionError as error:
                raise _invalid(body, "snappy", str(error)) from error
            yield out.size_bytes
            if position == end:
                return out.value()
            start = position
        if end - position < _SNAPPY_CHUNK_HEAD_BYTES:
            raise _invalid(body, "snappy", "truncated")
        chunk_bytes = int.from_bytes(body[position + 1 : position + 4], "little")
        if chunk_bytes < _SNAPPY_SHORT_CHUNK_BYTES:
            short_chunks += 1
            if short_chunks > _SNAPPY_SHORT_CHUNKS_MAX:
                raise _invalid(
                    body,
                    "snappy",
                    f"more than {_SNAPPY_SHORT_CHUNKS_MAX} chunks of less than {_SNAPPY_SHORT_CHUNK_BYTES} bytes",
                )
        position += _SNAPPY_CHUNK_HEAD_BYTES + chunk_bytes
        if position > end:
            raise _invalid(body, "snappy", "truncated")


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


class _Source:
    """A `_Source` returns a body in slices: decompressors copy their unused input, again for every stream in the body."""

    def __init__(self, body: bytes, encoding: str) -> None:
        self._body: Final = body
        self._encoding: Final = encoding
        self._position = 0
        self._unused = b""

    def next(self) -> bytes:
        """Return the bytes that were put back, or else the next slice; empty at the end."""
        data = self._unused
        if data:
            self._unused = b""
            return data
        data = self._body[self._position : self._position + _SLICE_BYTES]
        self._position += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        self._unused = data

    def at_end(self) -> bool:
        return not self._unused and self._position >= len(self._body)

    def invalid(self, why: str) -> RequestRefused:
        return _invalid(self._body, self._encoding, why)


class _Output(GrowingBytes):
    """An `_Output` collects the decompressed bytes of one body, up to its limit."""

    def __init__(self, encoding: str, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self.bytes_max: Final = bytes_max
        self._encoding: Final = encoding

    def next_bytes(self) -> int:
        """Return how many bytes to request: a chunk, or near the limit only one byte beyond it."""
        return min(self.bytes_max - self.size_bytes + 1, _CHUNK_BYTES)

    def take(self, chunk: "bytes | cramjam.Buffer") -> None:
        self.write(chunk)
        if self.size_bytes > self.bytes_max:
            raise _too_large(None, self._encoding, self.bytes_max)


def _too_large(size_bytes: int | None, encoding: str, bytes_max: int) -> RequestRefused:
    """Return the refusal of a body that is too large. `size_bytes` is None if only complete decompression would find it out."""
    size = f"more than {bytes_max}" if size_bytes is None else f"{size_bytes}"
    return RequestRefused(PAYLOAD_TOO_LARGE, f"the {encoding} body holds {size} bytes; at most {bytes_max} are taken")


def _invalid(body: bytes, encoding: str, why: str) -> RequestRefused:
    return RequestRefused(INVALID_COMPRESSION, f"cannot decompress the body as {encoding}: {len(body)} bytes, {why}")
