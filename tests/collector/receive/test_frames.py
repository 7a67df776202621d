"""What frames cost, without a connection."""

import pytest
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import strategies as st
from support.http2 import frame, pieces

from collector.receive.servers.frames import FRAME_BYTES_MAX, Flood, FrameMeter

PING = frame(6, bytes(8))
DATA = frame(0, bytes(FRAME_BYTES_MAX), stream_id=1)
TINY = frame(0, b"x", stream_id=1)
RESET = frame(3, bytes(4), stream_id=1)
HEAD = frame(1, bytes(100), stream_id=1, flags=4)


def meter(control_frames_max: int = 100, header_bytes_max: int = 1000) -> FrameMeter:
    return FrameMeter(0, control_frames_max, header_bytes_max)


def verdict(*frames: bytes, **limits: int) -> ErrorCodes | None:
    """Why those frames end a connection; None: they do not."""
    one = meter(**limits)
    try:
        for data in frames:
            one.feed(data)
    except Flood as flood:
        return flood.code
    return None


CALM = ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([PING] * 100, None),
        ([PING] * 101, CALM),
        ([TINY] * 101, CALM),
        ([RESET] * 5, None),
        ([RESET] * 6, CALM),
        ([HEAD] * 1000, None),  # requests are limited by how many are open
        ([DATA] * 1000, None),
        ([DATA, *[PING] * 50] * 20, None),  # 16 KiB pay for more than 50 frames
        ([frame(9, bytes(10), stream_id=1)] * 90, None),
        ([frame(1, bytes(1000), stream_id=1)], None),
        ([frame(1, bytes(1001), stream_id=1)], CALM),
        ([frame(1, bytes(600), stream_id=1), frame(9, bytes(401), stream_id=1)], CALM),
        ([frame(0, bytes(FRAME_BYTES_MAX + 1), stream_id=1)], ErrorCodes.FRAME_SIZE_ERROR),
        ([b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"], ErrorCodes.FRAME_SIZE_ERROR),  # as soon as it is announced
    ],
)
def test_what_frames_cost(frames: list[bytes], expected: ErrorCodes | None) -> None:
    assert expected == verdict(*frames)


def test_what_was_answered_pays_but_cannot_be_saved_up() -> None:
    one = meter()
    for _ in range(1000):
        one.answered()
        one.sent(16_384)
    one.feed(PING * 100)
    with pytest.raises(Flood):
        one.feed(PING)
    one = meter()
    for _ in range(1000):
        one.feed(PING * 20)
        one.answered()


@given(
    frames=st.lists(
        st.builds(
            frame, st.integers(0, 12), st.binary(max_size=300), stream_id=st.integers(0, 5), flags=st.sampled_from([0, 4])
        ),
        max_size=120,
    ),
    cuts=st.lists(st.integers(0, 100_000), max_size=20),
)
def test_however_the_bytes_are_cut_the_verdict_is_the_same(frames: list[bytes], cuts: list[int]) -> None:
    assert verdict(*frames) == verdict(*pieces(b"".join(frames), cuts))


def test_it_knows_what_is_half_here() -> None:
    """A frame's header, its payload, a head that goes on; and after each whole one, nothing is."""
    for whole in (PING, HEAD, frame(1, b"x", stream_id=1) + frame(9, b"", stream_id=1, flags=4)):
        one = FrameMeter(3, 100, 1000)
        assert not one.is_between
        one.feed(b"PRI")
        assert one.is_between
        for at in range(len(whole)):
            assert one.is_between == (at == 0)
            one.feed(whole[at : at + 1])
        assert one.is_between
