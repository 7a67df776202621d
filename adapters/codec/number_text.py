"""Write numbers as text, as `str` does, without an object for each number."""

from typing import Final

from librt.strings import BytesWriter, read_f64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.json_characters import MINUS, POINT, ZERO
from adapters.codec.json_scanner import POWERS

# Every number of this many digits fits a word.
_WORD_DIGITS: Final = 8
_WORD_DIGITS_END: Final = 100_000_000
_INT64_MIN: Final = -(2**63)
# For a number n below 100,000,000, n * _TENTH >> _TENTH_SHIFT is n // 10.
_TENTH: Final = 0xCCCCCCCD
_TENTH_SHIFT: Final = 35
# The most decimal places that are tried. `str` writes a number below 0.0001 with an exponent.
_PLACES_MAX: Final = 4
_SMALLEST: Final = 0.0001
# Two different decimals of up to 15 digits are never read as the same double.
_DIGITS_END: Final = 1e15


def put_integer(writer: BytesWriter, number: i64) -> None:
    """Write an integer in decimal."""
    if number < 0:
        if number == _INT64_MIN:
            writer.write(str(int(number)).encode())
            return
        writer.append(MINUS)
        number = -number
    if number >= _WORD_DIGITS_END:
        high: i64 = number // _WORD_DIGITS_END
        put_integer(writer, high)
        _put_digits(writer, number - high * _WORD_DIGITS_END, _WORD_DIGITS)
        return
    _put_digits(writer, number, 1)


def put_double(writer: BytesWriter, value: float) -> None:
    """Write a finite double in the shortest form that is read as the same double."""
    is_negative = value < 0.0
    magnitude = -value if is_negative else value
    if magnitude >= _SMALLEST:
        places: i64 = 0
        while places <= _PLACES_MAX:
            power = read_f64_le(POWERS, places << 3)
            scaled = magnitude * power + 0.5
            if scaled >= _DIGITS_END:
                break
            number: i64 = int(scaled)
            if float(number) / power == magnitude:
                if is_negative:
                    writer.append(MINUS)
                _put_decimal(writer, number, int(power), places)
                return
            places += 1
    writer.write(repr(value).encode())


def _put_decimal(writer: BytesWriter, number: i64, power: i64, places: i64) -> None:
    """Write number / power, where power is 10**places, with a point and at least one digit behind it."""
    whole: i64 = number // power
    put_integer(writer, whole)
    writer.append(POINT)
    if places == 0:
        writer.append(ZERO)
    else:
        _put_digits(writer, number - whole * power, places)


def _put_digits(writer: BytesWriter, number: i64, digits_min: i64) -> None:
    """Write a number of at most eight digits, with zeros before it up to `digits_min` digits."""
    word: i64 = 0
    digits: i64 = 0
    while number or digits < digits_min:
        rest: i64 = number * _TENTH >> _TENTH_SHIFT
        word = word << 8 | (ZERO + number - 10 * rest)
        number = rest
        digits += 1
    size: i64 = len(writer) + digits
    write_i64_le(writer, word)
    writer.truncate(size)
