"""adapters/codec/growing_bytes.py: whatever is written comes back, and memory is taken as it is written, in large pages."""

import resource
import sys
from pathlib import Path

import pytest

from adapters.codec.growing_bytes import GrowingBytes

MIB = 1 << 20
LIMIT = 64 * MIB
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PAGES_OF = 4096


def written(size_bytes: int, bytes_max: int, piece_bytes: int = MIB) -> GrowingBytes:
    """Different pieces; the last one may be short."""
    growing = GrowingBytes(bytes_max)
    for start in range(0, size_bytes, piece_bytes):
        growing.write(piece(start, min(piece_bytes, size_bytes - start)))
    return growing


def piece(start: int, size_bytes: int) -> bytes:
    return start.to_bytes(8, "big") * (size_bytes // 8) + b"." * (size_bytes % 8)


def content(size_bytes: int, piece_bytes: int = MIB) -> bytes:
    return b"".join(piece(start, min(piece_bytes, size_bytes - start)) for start in range(0, size_bytes, piece_bytes))


@pytest.mark.parametrize("bytes_max", [LIMIT, 512 * MIB], ids=["64 MiB", "512 MiB"])
@pytest.mark.parametrize("size_bytes", [0, 7, MIB, 12 * MIB, 12 * MIB + 1, 40 * MIB, LIMIT, LIMIT + 1, 90 * MIB])
def test_what_was_written_comes_back(size_bytes: int, bytes_max: int) -> None:
    """It comes back on both sides of where it moves, and once it is a piece beyond the limit."""
    growing = written(size_bytes, bytes_max)
    assert size_bytes == growing.size_bytes
    assert content(size_bytes)[5:MIB] == growing.part(5, MIB)
    assert b"" == growing.part(size_bytes, size_bytes + MIB)
    assert content(size_bytes) == growing.value()


@pytest.mark.parametrize("size_bytes", [1, 3 * MIB, 40 * MIB])
def test_a_buffer_is_filled_at_once(size_bytes: int) -> None:
    """It is filled also behind what was written and forgotten."""
    growing = written(20 * MIB, LIMIT)
    growing.clear()
    assert 0 == growing.size_bytes

    def fill(room: memoryview) -> None:
        room[:] = content(size_bytes)

    growing.fill(size_bytes, fill)
    assert size_bytes == growing.size_bytes
    assert content(size_bytes) == growing.value()


def huge_pages_are_given() -> bool:
    return sys.platform.startswith("linux") and HUGE_PAGES.exists() and "[never]" not in HUGE_PAGES.read_text()


@pytest.mark.skipif(not huge_pages_are_given(), reason="the kernel has no large pages to give")
def test_a_large_body_costs_few_faults() -> None:
    """60 MiB are 15,360 pages of 4 KiB, and 30 of 2 MiB. Up to 12 MiB may be new in the heap, and move twice."""
    growing = written(MIB, LIMIT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for start in range(MIB, 60 * MIB, MIB):
        growing.write(piece(start, MIB))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is counted is glibc's doing")
def test_memory_is_taken_as_it_is_written() -> None:
    """Of the 384 MiB that it moves to there is no more than was written, and a large page."""
    before = resident_bytes()
    growing = written(65 * MIB, 1 << 30)
    assert resident_bytes() - before < 100 * MIB
    assert 65 * MIB == growing.size_bytes


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGES_OF
