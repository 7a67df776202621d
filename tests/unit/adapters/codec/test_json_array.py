"""Compare adapters/codec/json_array with Python's own JSON, which reports where a value ends."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import examples
from support.fakes.receiving import NOW_UNIX_NANO
from support.limits import DEFAULT

from adapters.codec.json_array import Elements
from collector.ingest.validate import LimitRules

_texts = st.text(st.sampled_from('a"\\[]{},: \n\té😀'), max_size=6)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_spaces = st.text(st.sampled_from(" \t\r\n"), max_size=3)


def texts_of(array: str) -> list[str]:
    """Each element as it is written, by `raw_decode`."""
    decoder = json.JSONDecoder()
    found: list[str] = []
    position = array.index("[") + 1
    while True:
        position += len(array[position:]) - len(array[position:].lstrip(" \t\r\n,"))
        if array[position] == "]":
            return found
        _, end = decoder.raw_decode(array, position)
        found.append(array[position:end])
        position = end


@examples(300)
@given(st.lists(_values, min_size=1, max_size=5), st.booleans(), st.lists(_spaces, min_size=4, max_size=4), st.data())
@example(["\\", '"', '\\"'], False, ["", "", "", ""], None)
def test_an_element_is_its_text(values: list[Any], ascii_only: bool, spaces: list[str], data: st.DataObject | None) -> None:
    """Each element is found, in any order and more than once, whatever it contains and whatever space is around it."""
    inner = json.dumps(values, ensure_ascii=ascii_only, separators=(spaces[0] + "," + spaces[1], ":" + spaces[1]))
    array = spaces[2] + "[" + spaces[3] + inner[1:-1] + spaces[0] + "]" + spaces[2]
    expected = [text.encode() for text in texts_of(array)]
    assert len(values) == len(expected)
    order = list(range(len(values)))
    elements = Elements(array.encode())
    for index in (data.draw(st.permutations(order)) if data else order) * 2:
        elements.find(index)
        assert expected[index] == elements.text[elements.start : elements.end]


@pytest.mark.parametrize("text", [b"[" + b"\n" * (1 << 20) + b"1]", b'["' + b"x" * (1 << 20) + b'"]', b"[" + b"[" * (1 << 20)])
def test_it_rests(text: bytes) -> None:
    """A long run of white space, a long string and many brackets are read in pieces, with a pause between them."""
    rests: list[None] = []
    elements = Elements(text + b"]" * text.count(b"["), LimitRules(DEFAULT, NOW_UNIX_NANO, pause=lambda: rests.append(None)))
    elements.find(0)
    assert len(rests) >= 3
