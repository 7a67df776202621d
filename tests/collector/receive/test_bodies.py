"""collector/receive/bodies.py: what a body decompresses to is held as it comes, and the loop goes on."""

import asyncio
import gzip
import sys

import cramjam
import pytest

from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused
from collector.produce import Overloaded
from collector.receive.bodies import decompressed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
CONTENT = bytes(range(256)) * (5 * MIB // 256)
PACKED = {
    "gzip": gzip.compress(CONTENT),
    "zstd": zstd.compress(CONTENT),
    "snappy": bytes(cramjam.snappy.compress_raw(CONTENT)),
    "identity": CONTENT,
}


@pytest.mark.parametrize("encoding", PACKED)
async def test_what_is_decompressed_is_held_as_it_comes(encoding: str) -> None:
    """A megabyte at a time; snappy announces its size, and all of it is held before it is there."""
    held: list[int] = []
    assert CONTENT == await decompressed(PACKED[encoding], encoding, len(CONTENT), held.append)
    assert len(CONTENT) == sum(held)
    if encoding in ("gzip", "zstd"):
        assert max(held) <= MIB + 1


@pytest.mark.parametrize("encoding", PACKED)
async def test_no_more_is_decompressed_than_can_be_held(encoding: str) -> None:
    """The first step that is too much is the last."""
    held: list[int] = []

    def hold(size_bytes: int) -> None:
        held.append(size_bytes)
        if sum(held) > 2 * MIB:
            raise Overloaded("full")

    with pytest.raises(Overloaded):
        await decompressed(PACKED[encoding], encoding, len(CONTENT), hold)
    assert sum(held) <= (3 * MIB + 2 if encoding in ("gzip", "zstd") else len(CONTENT))


async def test_the_loop_goes_on_while_a_body_is_decompressed() -> None:
    """It turns at least once for each megabyte."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    await decompressed(PACKED["gzip"], "gzip", len(CONTENT), lambda _: None)
    turning.cancel()
    assert turns >= 4


async def test_too_large_a_body_is_refused() -> None:
    """As soon as it is over."""
    with pytest.raises(RequestRefused) as caught:
        await decompressed(PACKED["gzip"], "gzip", 3 * MIB, lambda _: None)
    assert PAYLOAD_TOO_LARGE == caught.value.reason
