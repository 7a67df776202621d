"""The normal forms of attributes that were met before are found by what was sent."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.otlp import normal_forms
from adapters.otlp.normal_forms import PLACES, NormalForms

BEFORE, BEHIND = b"before", b"behind, and more"


def find(forms: NormalForms, sent: bytes) -> bytes:
    return forms.find(BEFORE + sent + BEHIND, len(BEFORE), len(BEFORE) + len(sent))


def keep(forms: NormalForms, sent: bytes, normal: bytes) -> None:
    forms.keep(BEFORE + sent + BEHIND, len(BEFORE), len(BEFORE) + len(sent), normal)


@given(sent=st.binary(min_size=8, max_size=256), other=st.binary(min_size=8, max_size=256), data=st.data())
def test_a_form_is_found_for_its_own_bytes_only(sent: bytes, other: bytes, data: st.DataObject) -> None:
    """A form that differs in one byte, or ends earlier, is another."""
    forms = NormalForms()
    keep(forms, sent, b"normal")
    assert find(forms, sent) == b"normal"
    assert find(forms, other) == (b"normal" if other == sent else b"")
    at = data.draw(st.integers(0, len(sent) - 1))
    assert find(forms, sent[:at] + bytes([sent[at] ^ 1]) + sent[at + 1 :]) == b""
    assert find(forms, sent[:-1]) == b""
    assert find(forms, sent + b"x") == b""


def test_one_that_differs_from_another_in_its_place_is_not_found() -> None:
    """Between the middle and the end there are bytes that decide no place."""
    forms = NormalForms()
    sent = b"k" * 100
    for at in range(len(sent)):
        keep(forms, sent, b"normal")
        assert find(forms, sent[:at] + b"x" + sent[at + 1 :]) == b""


def test_the_table_does_not_grow() -> None:
    forms = NormalForms()
    for number in range(3 * PLACES):
        keep(forms, b"attribute %d" % number, b"normal %d" % number)
    kept = sum(find(forms, b"attribute %d" % number) == b"normal %d" % number for number in range(3 * PLACES))
    assert PLACES // 2 < kept <= PLACES


def test_what_is_kept_last_is_found() -> None:
    forms = NormalForms()
    keep(forms, b"attribute", b"first")
    keep(forms, b"attribute", b"second")
    assert find(forms, b"attribute") == b"second"


def test_the_shortest_and_the_longest_are_not_kept() -> None:
    forms = NormalForms()
    for sent in (b"", b"k" * 7, b"k" * 257):
        keep(forms, sent, b"normal")
        assert find(forms, sent) == b""


def test_attributes_of_the_same_number_have_places_of_their_own() -> None:
    """They are as many as an application has: keys that differ, numbers that are equal."""
    places = {normal_forms._place(b"\x0a\x06key.%02d\x12\x09\x21" % number + bytes(8), 0, 19) for number in range(64)}
    assert len(places) > 48
