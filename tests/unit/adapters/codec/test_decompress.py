"""What decompresses, what does not, and what it may cost."""

import gzip
import os
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.machine_speed import scaled

from adapters.codec.decompress import decompress
from adapters.errors import INVALID_COMPRESSION, PAYLOAD_TOO_LARGE, RequestRefused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
LIMIT = 64 * MIB


def snappy(content: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(content))


def zstd_of_unknown_size(content: bytes) -> bytes:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    return compressor.compress(content) + compressor.flush()


# Each way to compress, and the encoding that it is.
WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "gzip, stored": ("gzip", lambda content: gzip.compress(content, 0)),
    "deflate": ("deflate", zlib.compress),
    "deflate, raw": ("deflate", lambda content: zlib.compress(content, wbits=-15)),
    "deflate, raw, stored": ("deflate", lambda content: zlib.compress(content, 0, wbits=-15)),
    "zstd": ("zstd", zstd.compress),
    "zstd, size unknown": ("zstd", zstd_of_unknown_size),
    "snappy": ("snappy", snappy),
}
EACH_WAY = pytest.mark.parametrize(("encoding", "compress"), WAYS.values(), ids=WAYS)
STREAMS = [(encoding, compress) for encoding, compress in WAYS.values() if encoding in ("gzip", "deflate", "zstd")]
EACH_STREAM = pytest.mark.parametrize(("encoding", "compress"), STREAMS)

CONTENT = st.one_of(st.binary(max_size=200), st.binary(min_size=1, max_size=5).map(lambda part: part * 1000))


def refusal(body: bytes, encoding: str, bytes_max: int = LIMIT) -> RequestRefused:
    with pytest.raises(RequestRefused) as info:
        decompress(body, encoding, bytes_max)
    return info.value


@EACH_WAY
@given(content=CONTENT)
def test_what_was_compressed_comes_back(encoding: str, compress: Callable[[bytes], bytes], content: bytes) -> None:
    """Exactly at the limit it passes, and one byte beyond it is too large."""
    body = compress(content)
    assert decompress(body, encoding, len(content)) == content
    if content:
        error = refusal(body, encoding, len(content) - 1)
        assert error.reason == PAYLOAD_TOO_LARGE
        assert str(len(content) - 1) in error.message


@EACH_WAY
@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_sizes_about_that_of_a_chunk(encoding: str, compress: Callable[[bytes], bytes], size: int) -> None:
    for content in (bytes(size), os.urandom(size)):
        body = compress(content)
        assert decompress(body, encoding, size) == content
        assert refusal(body, encoding, size - 1).reason == PAYLOAD_TOO_LARGE


@EACH_STREAM
@given(parts=st.lists(CONTENT, min_size=1, max_size=5))
def test_streams_may_follow_each_other(encoding: str, compress: Callable[[bytes], bytes], parts: list[bytes]) -> None:
    """gzip's members and zstd's frames: the content is that of all of them."""
    whole = b"".join(parts)
    body = b"".join(compress(part) for part in parts)
    assert decompress(body, encoding, len(whole)) == whole
    if whole:
        assert refusal(body, encoding, len(whole) - 1).reason == PAYLOAD_TOO_LARGE


def test_skippable_frames_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert decompress(skippable + zstd.compress(b"content") + skippable, "zstd", 100) == b"content"


@EACH_STREAM
@given(content=CONTENT, data=st.data())
def test_truncated_bodies_are_refused(
    encoding: str, compress: Callable[[bytes], bytes], content: bytes, data: st.DataObject
) -> None:
    """They are refused at whichever byte they end."""
    body = compress(content)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    error = refusal(cut, encoding)
    assert error.reason == INVALID_COMPRESSION
    assert f"{len(cut)} bytes" in error.message


@given(content=CONTENT.filter(bool), data=st.data())
def test_truncated_snappy_is_refused(content: bytes, data: st.DataObject) -> None:
    body = snappy(content)
    assert refusal(body[: data.draw(st.integers(0, len(body) - 1))], "snappy").reason == INVALID_COMPRESSION


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "snappy"])
@given(garbage=st.binary(min_size=1, max_size=20))
def test_what_follows_the_content_is_refused(encoding: str, garbage: bytes) -> None:
    """It is not part of anything, so something is wrong with all of it."""
    _, compress = WAYS[encoding]
    body = compress(b"content") + garbage
    assert refusal(body, encoding).reason == INVALID_COMPRESSION


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "snappy"])
@given(body=st.binary(max_size=300))
def test_random_bytes_are_content_or_refused(encoding: str, body: bytes) -> None:
    reason = 0
    try:
        assert len(decompress(body, encoding, 1000)) <= 1000
    except RequestRefused as error:
        reason = error.reason
    assert reason in (0, INVALID_COMPRESSION, PAYLOAD_TOO_LARGE)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "snappy"])
def test_a_damaged_body_is_refused(encoding: str) -> None:
    """gzip, deflate and zstd check sums; what snappy can't tell it can't."""
    _, compress = WAYS["zstd, size unknown" if encoding == "zstd" else encoding]
    body = bytearray(compress(b"content of some length, not all the same"))
    body[-1] ^= 0xFF
    if encoding != "snappy":
        assert refusal(bytes(body), encoding).reason == INVALID_COMPRESSION


def test_framed_snappy_is_refused_by_name() -> None:
    error = refusal(bytes(cramjam.snappy.compress(b"content")), "snappy")
    assert error.reason == INVALID_COMPRESSION
    assert "framed" in error.message


FRAMED = b"\xff\x06\x00\x00sNaPpY"
SHORT_CHUNKS = {
    "padding": b"\xfe\x00\x00\x00",
    "skippable": b"\x80\x00\x00\x00",
    "the stream's name": FRAMED,
    "empty": b"\x01\x04\x00\x00\xd8\xea\x82\xa2",
}


@pytest.mark.parametrize("chunk", SHORT_CHUNKS.values(), ids=SHORT_CHUNKS)
def test_snappys_short_chunks_are_bounded(chunk: bytes) -> None:
    """A body of 56 MB has 14 million of them and no content, which took 3.3 s of CPU; it is refused in less than 50 ms."""
    head = bytes(cramjam.snappy.compress(b"content" * 1000))
    assert b"content" * 1000 == decompress(head + chunk * 1000, "snappy_of_any_format", LIMIT)
    body = head + chunk * (56 * MIB // len(chunk))
    began = time.process_time()
    error = refusal(body, "snappy_of_any_format")
    took_s = time.process_time() - began
    assert INVALID_COMPRESSION == error.reason
    assert "more than 1000 chunks of less than 64 bytes" in error.message
    assert took_s < scaled(0.05, took_s)


def test_snappy_of_many_full_chunks_passes() -> None:
    """Senders of streams write such bodies: no chunk is short, however many there are."""
    content = bytes(range(256)) * 4
    chunk = bytes(cramjam.snappy.compress(content))[len(FRAMED) :]
    assert len(chunk) > 64
    assert content * 5000 == decompress(FRAMED + chunk * 5000, "snappy_of_any_format", LIMIT)


@pytest.mark.parametrize("announced", [b"\xff\xff\xff\xff\x0f", b"\x81\x80\x80\x20"])
def test_what_snappy_announces_is_checked_before_anything_is_allocated(announced: bytes) -> None:
    """4 GiB in five bytes, and a byte over the limit in four."""
    tracemalloc.start()
    error = refusal(announced + b"\0a", "snappy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == PAYLOAD_TOO_LARGE
    assert peak < MIB


def test_what_zstd_announces_is_checked_before_anything_is_decompressed() -> None:
    """By the first frame's head, which says how much follows; what it says of a body that fits changes nothing."""
    head = zstd.compress(bytes(2 * MIB))[:18]
    with pytest.raises(RequestRefused) as raised:
        decompress(head, "zstd", 2 * MIB - 1)
    assert PAYLOAD_TOO_LARGE == raised.value.reason
    assert f"the zstd body holds {2 * MIB} bytes; at most {2 * MIB - 1} are taken" == raised.value.message
    assert refusal(head, "zstd").reason == INVALID_COMPRESSION
    assert bytes(2 * MIB) == decompress(zstd.compress(bytes(2 * MIB)), "zstd", 2 * MIB)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x1f"])
def test_snappy_without_a_size_is_refused(body: bytes) -> None:
    """None, one that is cut off, and ones beyond 32 bits."""
    assert refusal(body, "snappy").reason == INVALID_COMPRESSION


def test_snappy_that_announces_more_than_it_can_hold_is_refused_before_anything_is_allocated() -> None:
    assert "more than it can hold" in refusal(b"\x80\x80\x80\x10\0a", "snappy").message


def test_the_most_that_snappy_can_hold_passes() -> None:
    """The densest there is: one literal, then copies of 64 bytes in three."""
    copies = 1000
    body = bytearray()
    size = 1 + 64 * copies
    while size > 127:
        body.append(size & 127 | 128)
        size >>= 7
    body.append(size)
    body += b"\x00a" + (bytes([63 << 2 | 2]) + b"\x01\x00") * copies
    assert decompress(bytes(body), "snappy", LIMIT) == b"a" * (1 + 64 * copies)


def test_zstds_window_is_bounded() -> None:
    """128 MiB of window would be 128 MiB of memory for a body of some bytes; RFC 9659 allows 8."""
    large = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    error = refusal(large.compress(b"content") + large.flush(), "zstd")
    assert error.reason == INVALID_COMPRESSION
    allowed = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 23})
    assert decompress(allowed.compress(b"content") + allowed.flush(), "zstd", LIMIT) == b"content"


@pytest.mark.parametrize("level", [1, 3, 19])
def test_large_bodies_at_usual_levels_pass(level: int) -> None:
    content = bytes(16 * MIB)
    assert decompress(zstd.compress(content, level), "zstd", LIMIT) == content


BOMB = 4 * LIMIT


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "snappy"])
def test_a_bomb_costs_no_more_than_the_limit(encoding: str) -> None:
    """It is refused within a second."""
    _, compress = WAYS[encoding]
    body = compress(bytes(BOMB))
    tracemalloc.start()
    began = time.process_time()
    error = refusal(body, encoding)
    took = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == PAYLOAD_TOO_LARGE
    assert peak < LIMIT * 1.25
    assert took < 1


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_a_bomb_in_a_bomb_is_only_as_large_as_its_outside(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    inner = compress(bytes(BOMB))
    assert decompress(compress(inner), encoding, LIMIT) == inner


@EACH_STREAM
def test_a_body_at_the_limit_takes_its_memory_once(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(bytes(LIMIT))
    tracemalloc.start()
    content = decompress(body, encoding, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(content) == LIMIT
    assert peak < LIMIT * 1.25


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_a_million_empty_streams_are_refused_at_once(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Each would cost a decompressor."""
    body = compress(b"") * 1_000_000
    began = time.process_time()
    assert refusal(body, encoding).reason == INVALID_COMPRESSION
    assert time.process_time() - began < 1


def test_an_unknown_encoding_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="'br'"):
        decompress(b"", "br", 1)
