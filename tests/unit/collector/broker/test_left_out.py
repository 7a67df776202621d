"""Which messages of a range are left out, as bits and as the text of an intent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from collector.broker.left_out import LEFT_OUT_INDEX_MAX, after, before, bitmap, indexes, parse_log, with_left_out

INDEXES = st.sets(st.integers(0, LEFT_OUT_INDEX_MAX - 1), max_size=50)
LOGS = st.sampled_from(["", "cluster.0190-a.12", "c%2B.-.-1", "0123456789abcdef.01234567"])


@examples(100)
@given(chosen=INDEXES, log=LOGS, count=st.integers(0, LEFT_OUT_INDEX_MAX))
def test_an_intent_keeps_which_messages_are_left_out(chosen: set[int], log: str, count: int) -> None:
    """It keeps the identity of the log, too. A range that is cut in two keeps each part's."""
    left_out = bitmap(chosen)
    assert sorted(chosen) == list(indexes(left_out))
    assert (log, left_out) == parse_log(with_left_out(log, left_out))
    assert sorted(index for index in chosen if index < count) == list(indexes(before(left_out, count)))
    assert sorted(index - count for index in chosen if index >= count) == list(indexes(after(left_out, count)))


def test_the_text_is_short() -> None:
    """It has to fit with four topics into 4,096 bytes; and what leaves nothing out is written as by older versions."""
    longest = with_left_out("log", bitmap(range(LEFT_OUT_INDEX_MAX)))
    assert len(longest) <= len("log") + 344
    assert "log" == with_left_out("log", b"")


def test_a_message_beyond_the_bitmap_cannot_be_named() -> None:
    """Its range has to be cut before it."""
    with pytest.raises(ValueError, match="2048"):
        bitmap([LEFT_OUT_INDEX_MAX])
