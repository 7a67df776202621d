"""Rewriting the numbers of large JSON texts: what it finds, and that it rests."""

import time

import pytest
from support.limits import DEFAULT

from adapters.codec.json_numbers import quote_constants, quote_long_numbers, with_minus_zeros
from collector.ingest.validate import LimitRules

# Three slices, and a little.
_LONG = b"[" + b" " * (3 << 20)


def _rules(rests: list[None]) -> LimitRules:
    return LimitRules(DEFAULT, time.time_ns(), pause=lambda: rests.append(None))


@pytest.mark.parametrize(
    "rewrite", [with_minus_zeros, lambda body, rules: quote_constants(body, rules, b""), quote_long_numbers]
)
def test_a_text_without_such_numbers_is_not_copied(rewrite: object) -> None:
    assert callable(rewrite)
    for body in (b"", b"[]", b'["-0", "NaN", "12345678901234567890"]', _LONG + b"1, -1]"):
        rests: list[None] = []
        assert rewrite(body, _rules(rests)) is body
        assert len(rests) >= len(body) >> 20


@pytest.mark.parametrize("padding", range(3))
def test_a_minus_zero_is_found_wherever_slices_end(padding: int) -> None:
    body = b"[" + b" " * ((1 << 20) - 3 + padding) + b"-0]"
    assert body[:-1] + b".0]" == with_minus_zeros(body, _rules([]))


def test_the_text_around_a_number_is_copied_in_slices() -> None:
    """The rests are those of the search, of 256 KiB, and as many of the copies before and behind the number."""
    for rewrite, number, written in (
        (lambda body, rules: quote_constants(body, rules, b""), b"NaN", b'"NaN"'),
        (quote_long_numbers, b"9" * 20, b'"' + b"9" * 20 + b'"'),
    ):
        rests: list[None] = []
        assert _LONG + written + _LONG[1:] == rewrite(_LONG + number + _LONG[1:], _rules(rests))
        assert len(rests) >= 4 * (len(_LONG) >> 18) - 4
