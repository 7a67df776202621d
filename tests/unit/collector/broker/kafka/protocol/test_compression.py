"""What a batch is decompressed to, piece by piece, is what aiokafka's encoders were given; a bomb is no more in memory than a
piece."""

import gzip
import struct
from contextlib import suppress
from typing import Any

import cramjam
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from hypothesis import given
from hypothesis import strategies as st

from collector.broker.kafka.protocol.compression import Undecodable, pieces

MIB = 1 << 20
ENCODERS: dict[int, Any] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
CODECS = sorted(ENCODERS)


@pytest.mark.parametrize("codec", CODECS)
@given(st.binary(max_size=2000), st.integers(1, 200))
def test_what_was_compressed_is_read(codec: int, data: bytes, times: int) -> None:
    text = data * times
    assert text == b"".join(pieces(codec, ENCODERS[codec](text)))


def test_snappy_is_read_without_a_frame_too() -> None:
    assert [b"ab" * 100_000] == list(pieces(2, bytes(cramjam.snappy.compress_raw(b"ab" * 100_000))))


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_read_piece_by_piece(codec: int) -> None:
    size = 0
    for piece in pieces(codec, ENCODERS[codec](bytes(64 * MIB))):
        assert len(piece) <= 4 * MIB
        size += len(piece)
    assert 64 * MIB == size


def test_what_snappy_announces_is_checked_first() -> None:
    """Four gigabytes would be allocated before a byte is decompressed."""
    with pytest.raises(Undecodable, match="4294967295 bytes"):
        list(pieces(2, b"\xff\xff\xff\xff\x0f" + bytes(20)))


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
def test_damage_is_reported(codec: int, data: st.DataObject) -> None:
    """The error is Undecodable, or there is none: the batch has a checksum of its own."""
    damaged = bytearray(ENCODERS[codec](b"0123456789" * 5000))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Undecodable):
        assert sum(map(len, pieces(codec, bytes(damaged)))) < 64 * MIB


@pytest.mark.parametrize("codec", CODECS)
def test_half_a_batch_is_reported(codec: int) -> None:
    whole = ENCODERS[codec](bytes(range(256)) * 500)
    with pytest.raises(Undecodable):
        list(pieces(codec, whole[: len(whole) // 2]))


def test_members_and_frames_behind_each_other_are_read() -> None:
    assert b"abcd" == b"".join(pieces(1, gzip.compress(b"ab") + gzip.compress(b"cd") + b"\0\0"))
    assert b"abcd" == b"".join(pieces(4, zstd_encode(b"ab") + b"\x50\x2a\x4d\x18\x02\0\0\0xy" + zstd_encode(b"cd")))


def test_the_parts_of_a_frame_of_lz4_are_passed_over() -> None:
    """A content size, blocks that are not compressed, and their checksums; Kafka does not look at a checksum of the content."""
    block = b"\x03\0\0\x80abc" + bytes(4)
    frame = b"\x04\x22\x4d\x18" + bytes([0x60 | 0x10 | 0x08 | 0x04, 0x40]) + struct.pack("<Q", 6) + b"\0"
    assert [b"abc", b"abc"] == list(pieces(3, frame + block + block + bytes(4) + b"\1\2\3\4"))


def test_an_unknown_codec_is_reported() -> None:
    with pytest.raises(Undecodable, match="codec 6"):
        list(pieces(6, b"abc"))
