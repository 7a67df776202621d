"""collector/receivers/grpc/stream_call.py: what a client may send ahead of the answers that it reads."""

import asyncio

import pytest

from collector.receivers.grpc.stream_call import CallFailed, StreamCall


async def _nothing(_call: StreamCall) -> None:
    """Answer nothing."""


def _message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(("size", "taken"), [(0, 64), (1_000, 64), (30_000, 2), (65_536, 1)])
async def test_messages_that_wait_are_bounded(size: int, taken: int) -> None:
    """By number and by bytes; those that were taken are answered, and the call fails then. What comes later is not kept."""
    call = StreamCall(1, 0.0, _nothing)
    for _ in range(100):
        call.feed(_message(b"x" * size))
    for _ in range(taken):
        assert b"x" * size == await call.receive()
    with pytest.raises(CallFailed, match="read the answers first"):
        await call.receive()


async def test_messages_may_come_in_any_pieces() -> None:
    """Byte by byte or many at once, they are the same; and where they are read, there may be any number."""
    sent = [b"", b"a", b"b" * 300] * 20
    whole = b"".join(map(_message, sent))
    for step in (1, 7, len(whole)):
        call = StreamCall(1, 0.0, _nothing)
        got: list[bytes | None] = []
        for start in range(0, len(whole), step):
            call.feed(whole[start : start + step])
            if step < len(whole):
                while call._messages:
                    got.append(await call.receive())
        while len(got) < len(sent):
            got.append(await call.receive())
        assert sent == got


async def test_others_have_their_turn_after_each_message() -> None:
    """They have it however many messages there are."""
    call = StreamCall(1, 0.0, _nothing)
    call.feed(_message(b"") * 60)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(60):
        await call.receive()
    counting.cancel()
    assert turns >= 59
