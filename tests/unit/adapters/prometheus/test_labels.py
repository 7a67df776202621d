"""adapters/prometheus/labels.py, which reads a series by what the one before had, against `read_series`, which does not."""

import struct

from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import examples
from support.references.remote_write import length_delimited, varint
from support.references.twins import check_v1 as check
from support.strategies.prometheus import NOW_MS

from adapters.codec.wire import Cursor, NonCanonical
from adapters.prometheus.labels import LabelReader
from adapters.prometheus.series import Series, read_series
from adapters.rules import Rules

Labels = list[tuple[str, str]]

_NAMES = st.sampled_from(
    [
        *("__name__", "job", "instance", "service_name", "service_instance_id", "service_nam_", "service_instances_i"),
        *("a", "ab", "abcdefgh", "cpu", "é", "n" * 127, "n" * 128, "z", ""),
    ]
)
_VALUES = st.sampled_from(
    ["0", "1", "10", "idle", "node", "api", "été", "v" * 116, "v" * 127, "v" * 128, "w" * 128, "x" * 300, ""]
)
_SAMPLE = length_delimited(2, b"\x09" + struct.pack("<d", 1.5) + b"\x10" + varint(NOW_MS))


@st.composite
def label_sets(draw: st.DrawFn) -> list[Labels]:
    """Those of series that come one behind the other: each is as the one before, but for a change or two."""
    labels: Labels = sorted(draw(st.dictionaries(_NAMES.filter(bool), _VALUES.filter(bool), max_size=6)).items())
    if draw(st.integers(0, 9)):
        labels = [("__name__", "up"), *[pair for pair in labels if pair[0] != "__name__"]]
    sets = [labels]
    for _ in range(draw(st.integers(1, 8))):
        labels = list(labels)
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(labels)))
            change = draw(st.integers(0, 5))
            if change <= 2 and at < len(labels):
                labels[at] = (labels[at][0], draw(_VALUES))
            elif change == 3 and at < len(labels):
                del labels[at]
            elif change == 4 and at < len(labels):
                labels[at] = (draw(_NAMES), labels[at][1])
            else:
                labels.insert(at, (draw(_NAMES), draw(_VALUES)))
        sets.append(labels)
    return sets


def encoded(labels: Labels) -> bytes:
    """Fields 1 of a TimeSeries."""
    return b"".join(
        length_delimited(1, length_delimited(1, name.encode()) + length_delimited(2, value.encode())) for name, value in labels
    )


def said(series: Series) -> tuple[object, ...]:
    return (
        *(series.reason, series.name, series.service_id, series.resource, series.attributes, series.attribute_count),
        *(series.key_bytes_max, series.value_bytes_max),
    )


def is_plain(labels: Labels) -> bool:
    """Whether the reader may not leave it to `read_series`."""
    names = [name for name, _ in labels]
    return (
        "__name__" in names
        and len(set(names)) == len(names)
        and all(0 < len(name.encode()) <= 127 and value for name, value in labels)
    )


@examples(600)
@given(label_sets())
@example([[("__name__", "up"), ("job", "a")], [("__name__", "up"), ("cpu", "0")]])
@example([[("__name__", "up"), ("service_name", "a")], [("__name__", "up"), ("job", "b"), ("service_name", "a")]])
@example([[("__name__", "up"), ("job", "b"), ("service_name", "a")], [("__name__", "up"), ("service_name", "a")]])
@example([[("__name__", "up"), ("service_instance_id", "a")], [("__name__", "up"), ("service_instance_id", "b")]])
@example([[("__name__", "up"), ("instance", "a"), ("job", "b")], [("__name__", "up"), ("instance", "a")], [("__name__", "up")]])
@example([[("__name__", "up"), ("a", "0"), ("b", "1")], [("__name__", "up"), ("a", "0"), ("a", "1")], [("__name__", "up")]])
@example([[("__name__", "up"), ("a", "")], [("__name__", "up"), ("a", "1")], [("__name__", "up"), ("a", "1")]])
def test_a_series_is_read_as_it_would_be_alone(sets: list[Labels]) -> None:
    """What came before it changes nothing: a name, a place, attributes, or labels that were refused."""
    body = b""
    places: list[tuple[int, int, int]] = []
    for labels in sets:
        start = len(body)
        body += encoded(labels)
        places.append((start, len(body), len(body) + len(_SAMPLE)))
        body += _SAMPLE
    reader = LabelReader(body, Rules())
    for labels, (start, labels_end, end) in zip(sets, places, strict=True):
        found = reader.read(start, end)
        assert found == (labels_end if is_plain(labels) else -1)
        if found >= 0:
            assert said(read_series(Cursor(body), start, labels_end)) == said(reader.series)


@examples(300)
@given(label_sets())
def test_series_that_resemble_each_other_are_adapted_as_the_twin_does(sets: list[Labels]) -> None:
    check(b"".join(length_delimited(1, encoded(labels) + _SAMPLE) for labels in sets))


@examples(1000)
@given(st.data())
def test_bytes_that_were_changed_are_read_as_they_would_be_alone(data: st.DataObject) -> None:
    """They may be anywhere: tags, lengths, invalid text, the end of the body. What is left to `read_series` is no matter."""
    pieces = [encoded(labels) for labels in data.draw(label_sets())]
    whole = bytearray(b"".join(pieces))
    for _ in range(data.draw(st.integers(1, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.sampled_from([0, 1, 3, 10, 18, 127, 128, 255]))
    body = bytes(whole) + data.draw(st.sampled_from([b"", b"\x12", _SAMPLE]))
    reader = LabelReader(body, Rules())
    start = 0
    for piece in pieces:
        end = min(start + len(piece), len(body))
        found = reader.read(start, end)
        if found >= 0:
            try:
                alone = said(read_series(Cursor(body), start, found))
            except NonCanonical:
                alone = ()
            assert alone == said(reader.series)
        start = end
