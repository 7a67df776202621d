"""A bounded dict of bytes."""

from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from collector.runtime.latest_entries import LatestEntries


@examples(100)
@given(puts=st.lists(st.integers(0, 12)), entries_max=st.integers(0, 10))
def test_entries_against_a_model(puts: list[int], entries_max: int) -> None:
    """The keys are those that were added last, each with its last value. What was dropped can be added again."""
    entries = LatestEntries(entries_max)
    expected: dict[bytes, bytes] = {}  # in the order in which keys were added
    for number, key in enumerate(map(str, puts)):
        entries.put(key.encode(), str(number).encode())
        expected[key.encode()] = str(number).encode()
        if len(expected) > entries_max:
            del expected[next(iter(expected))]
        assert len(entries) == len(expected)
        found = {str(key).encode(): entries.get(str(key).encode()) for key in range(13)}
        assert expected == {key: value for key, value in found.items() if value is not None}
