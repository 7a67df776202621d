"""The writer's memory of fingerprints."""

import sys
import tracemalloc
from collections import defaultdict

from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import examples

from collector.writer.fingerprint_memory import GENERATIONS, FingerprintMemory

WINDOW_S = 900
SECOND_NS = 10**9


def value(number: int) -> bytes:
    return number.to_bytes(16, "big", signed=True)


@examples(100)
@given(
    added=st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(-40, 40), st.integers(0, 3 * WINDOW_S)), max_size=200),
    keys_max=st.sampled_from([4, 16, 100_000]),
)
# The table with the later copy of one is forgotten first.
@example(
    added=[
        *[(b"a", number, 2 * WINDOW_S - 10) for number in range(1, 3)],
        (b"a", 0, 351),
        (b"a", 3, 351),
        *[(b"a", number, 548) for number in (0, 4, 5, 6)],
        (b"a", 7, 3 * WINDOW_S - 4),
    ],
    keys_max=16,
)
# The later copy, which came with an earlier time, is forgotten and the former is not.
@example(added=[(b"b", 0, 1), (b"b", 0, 0), (b"a", 0, 2 * WINDOW_S + 1)], keys_max=4)
def test_memory_against_a_dict(added: list[tuple[bytes, int, int]], keys_max: int) -> None:
    """The last time of each is found, or it was forgotten no later than is said, and a former time of it may be found then;
    nothing else is found; it is bounded."""
    memory = FingerprintMemory(keys_max, WINDOW_S * SECOND_NS)
    expected: defaultdict[tuple[bytes, int], list[int]] = defaultdict(list)
    for tenant, number, second in added:
        memory.add(tenant, value(number), second * SECOND_NS + 5)
        expected[tenant, number].append(second * SECOND_NS)
        assert len(memory) <= max(keys_max, GENERATIONS)
    for tenant in (b"a", b"b", b"c"):
        for number in range(-41, 42):
            found = memory.last(tenant, value(number))
            times = expected[tenant, number]
            if not times or times[-1] < memory.forgotten_until_unix_nano:
                assert found in [-1, *times]
            else:
                assert found == times[-1]


def test_a_million_take_less_than_64_mib() -> None:
    """Bytes of the tables, at the bound of the default settings."""
    memory = FingerprintMemory(200_000, WINDOW_S * SECOND_NS)
    for number in range(200_000):
        memory.add(b"t", value(number << 70 | number), SECOND_NS)
    assert 200_000 == len(memory)
    size_bytes = sum(sys.getsizeof(table._numbers) for table in memory._tables)
    assert 5 * size_bytes <= 64 * 1024**2


def test_a_million_fingerprints_take_at_most_64_mib() -> None:
    """This holds also while a table grows. A thirty-second part of them has tables of the same shape."""
    part = 1_000_000 // GENERATIONS // 32 * GENERATIONS
    tracemalloc.start()
    try:
        memory = FingerprintMemory(part, WINDOW_S * SECOND_NS)
        for number in range(part):
            memory.add(b"a", value(number), SECOND_NS)
        assert len(memory) == part
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 64 * 2**20 // 32
