"""Numbers are written as Python's own functions write them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from librt.strings import BytesWriter

from adapters.codec.number_text import put_double, put_integer

INT64 = st.integers(-(2**63), 2**63 - 1)


def integer(number: int) -> str:
    writer = BytesWriter()
    writer.write(b"before")
    put_integer(writer, number)
    return writer.getvalue().decode().removeprefix("before")


def double(value: float) -> str:
    writer = BytesWriter()
    writer.write(b"before")
    put_double(writer, value)
    return writer.getvalue().decode().removeprefix("before")


@pytest.mark.parametrize("digits", range(20))
def test_integers_around_each_power_of_ten(digits: int) -> None:
    for number in range(10**digits - 12, 10**digits + 12):
        if number < 2**63:
            assert str(number) == integer(number)
            assert str(-number) == integer(-number)


@given(INT64)
@example(-(2**63))
@example(2**63 - 1)
def test_integers(number: int) -> None:
    assert str(number) == integer(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(0.0)
@example(-0.0)
@example(0.0001)
@example(0.00009999)
@example(5e-324)
@example(999_999_999_999_999.5)
@example(1e15)
@example(1e16)
@example(123_456_789_012_345_680.0)
@example(1.7976931348623157e308)
def test_doubles(value: float) -> None:
    assert repr(value) == double(value)


@given(number=st.integers(-(10**17), 10**17), places=st.integers(0, 9))
def test_doubles_with_few_decimal_places(number: int, places: int) -> None:
    """Most of them are written without `repr`; a neighbour has many digits."""
    value = number / 10**places
    assert repr(value) == double(value)
    neighbour = value * (1 + 2**-52)
    assert repr(neighbour) == double(neighbour)
