"""Eight digits at once are what Python reads."""

import string

from hypothesis import given
from hypothesis import strategies as st
from librt.strings import BytesWriter, read_i64_le

from adapters.codec.digits import decimal_of, hex_of, put_hex

# What a string of JSON may have: nothing below a space.
CHARACTERS = bytes(range(0x20, 0x100))


@given(digits=st.integers(0, 10**8 - 1))
def test_decimal_digits(digits: int) -> None:
    assert decimal_of(read_i64_le(b"%08d" % digits, 0)) == digits


@given(content=st.binary(min_size=4, max_size=4), cases=st.integers(0, 255))
def test_hex_digits_of_either_case(content: bytes, cases: int) -> None:
    digits = "".join(digit.upper() if cases >> at & 1 else digit for at, digit in enumerate(content.hex()))
    assert hex_of(read_i64_le(digits.encode(), 0)) == int.from_bytes(content, "little")


def test_any_other_character_in_any_place_is_refused() -> None:
    for at in range(8):
        for character in CHARACTERS:
            decimal = b"9" * at + bytes([character]) + b"0" * (7 - at)
            assert (decimal_of(read_i64_le(decimal, 0)) == -1) is (chr(character) not in string.digits)
            hexadecimal = b"f" * at + bytes([character]) + b"0" * (7 - at)
            assert (hex_of(read_i64_le(hexadecimal, 0)) == -1) is (chr(character) not in string.hexdigits)


def test_decimal_digits_may_be_between_any_bytes() -> None:
    for character in range(0x20):
        assert decimal_of(read_i64_le(b"1234567" + bytes([character]), 0)) == -1


@given(word=st.lists(st.sampled_from(CHARACTERS), min_size=8, max_size=8).map(bytes))
def test_words(word: bytes) -> None:
    is_decimal = all(chr(byte) in string.digits for byte in word)
    assert decimal_of(read_i64_le(word, 0)) == (int(word) if is_decimal else -1)
    is_hex = all(chr(byte) in string.hexdigits for byte in word)
    assert hex_of(read_i64_le(word, 0)) == (int.from_bytes(bytes.fromhex(word.decode()), "little") if is_hex else -1)


@given(content=st.binary(max_size=40), spoilt=st.none() | st.tuples(st.integers(0, 79), st.sampled_from("gG/:@`\x7f\xff")))
def test_hex_digits_of_any_number(content: bytes, spoilt: tuple[int, str] | None) -> None:
    digits = content.hex()
    is_hex = spoilt is None or spoilt[0] >= len(digits)
    if not is_hex:
        assert spoilt is not None
        digits = digits[: spoilt[0]] + spoilt[1] + digits[spoilt[0] + 1 :]
    writer = BytesWriter()
    assert put_hex(writer, f'"{digits}"'.encode("latin-1"), 1, 1 + len(digits)) is is_hex
    assert not is_hex or writer.getvalue() == content
