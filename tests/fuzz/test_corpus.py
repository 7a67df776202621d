"""What the fuzzer has found, and mutations of it, thrown at every decoder as it is installed: compiled where it is compiled."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.strategies.fuzzing import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = 2_000
# A conversation makes a receiver each time.
MUTATIONS_OF = dict.fromkeys(("http1", "http2", "grpc", "http2_frames", "grpc_frames"), 300)


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert sorted(TARGETS) == sorted(path.name for path in CORPUS.iterdir())
    assert all(len(corpus(target)) >= 3 for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_holds(target: str) -> None:
    for data in corpus(target):
        TARGETS[target](data)


def cut(data: bytes, _other: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def flip(data: bytes, _other: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(draw.randint(1, 3)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def say(data: bytes, _other: bytes, draw: random.Random) -> bytes:
    """A byte, or a few, that mean something: lengths, tags, brackets, ends."""
    word = draw.choice(
        [b"\0", b"\x7f", b"\x80", b"\xff" * 9 + b"\1", b"\xff\xff\xff\xff\x0f", b"\x0a", b"\x12", b"\x0b", b"[", b'"', b"\r\n"]
    )
    at = draw.randrange(len(data) + 1)
    return data[:at] + word + data[at + draw.choice([0, 1, len(word)]) :]


def splice(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def again(data: bytes, _other: bytes, draw: random.Random) -> bytes:
    """A stretch of it several times."""
    start = draw.randrange(len(data) + 1)
    end = draw.randrange(start, len(data) + 1)
    return data[:end] + data[start:end] * draw.choice([1, 2, 50]) + data[end:]


HOW: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (cut, flip, say, splice, again)


def mutations(target: str, count: int) -> Iterator[bytes]:
    """Always the same ones, so that what fails here fails everywhere."""
    draw = random.Random(target)
    inputs = corpus(target)
    for _ in range(count):
        data = draw.choice(inputs)
        for _ in range(draw.randint(1, 3)):
            data = draw.choice(HOW)(data, draw.choice(inputs), draw)
        yield data[:8192]


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_what_was_found_hold(target: str) -> None:
    for data in mutations(target, MUTATIONS_OF.get(target, MUTATIONS)):
        try:
            TARGETS[target](data)
        except BaseException as error:
            raise AssertionError(f"{target} fails with {data!r}") from error
