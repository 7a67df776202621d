"""Convert eight digits at once, from the eight characters of a little-endian word. No step overflows 64 bits, so interpreted
code, whose integers are longer, computes the same.

Source of the method: "SIMD within a register" (Fisher and Dietz, 1998); each byte of the word is a lane.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le
from mypy_extensions import i64, u8

# Read from bytes: a literal of 64 bits whose highest bit is set would be an object.
_HIGH_NIBBLES: Final = b"\xf0" * 8
_WORD_BYTES: Final = 8
_INT32_END: Final = 1 << 31
# The value of each hex digit; 255 for any other character.
_HEX_DIGITS: Final = bytes([int(chr(n), 16) if chr(n) in "0123456789abcdefABCDEF" else 255 for n in range(256)])
_NO_DIGIT: Final = 255


def decimal_of(word: i64) -> i64:
    """Return the number that eight decimal digits write; -1 if any is not a digit."""
    high_nibbles: i64 = read_i64_le(_HIGH_NIBBLES, 0)
    zeros: i64 = 0x3030303030303030
    if word & high_nibbles != zeros or (word + 0x0606060606060606) & high_nibbles != zeros:
        return -1
    digits: i64 = word & 0x0F0F0F0F0F0F0F0F
    pairs: i64 = (digits * 10 + (digits >> 8)) & 0x00FF00FF00FF00FF
    fours: i64 = (pairs * 100 + (pairs >> 16)) & 0x0000FFFF0000FFFF
    return (fours & 0xFFFFFFFF) * 10_000 + (fours >> 32)


def hex_of(word: i64) -> i64:
    """Return the four bytes, as a little-endian word, that eight hex digits write; -1 if any is not a hex digit. No character
    may be below a space."""
    letters: i64 = word >> 6 & 0x0101010101010101
    digits: i64 = (word & 0x0F0F0F0F0F0F0F0F) + 9 * letters
    # Each must be a digit's value, and the character of that value must be the one in the text, in lower case.
    above_nine: i64 = (digits + 0x7676767676767676) >> 7 & 0x0101010101010101
    if digits & read_i64_le(_HIGH_NIBBLES, 0) or digits + 0x3030303030303030 + 0x27 * above_nine != word | 0x2020202020202020:
        return -1
    pairs: i64 = (digits << 4 | digits >> 8) & 0x00FF00FF00FF00FF
    fours: i64 = (pairs | pairs >> 8) & 0x0000FFFF0000FFFF
    return (fours | fours >> 16) & 0xFFFFFFFF


def put_hex(writer: BytesWriter, text: bytes, start: i64, end: i64) -> bool:
    """Write the bytes that the hex digits at start:end write, an even number of digits. Return False if any is not a hex digit:
    then some bytes are written already. No character may be below a space."""
    position: i64 = start
    while end - position >= 2 * _WORD_BYTES:
        first: i64 = hex_of(read_i64_le(text, position))
        second: i64 = hex_of(read_i64_le(text, position + _WORD_BYTES))
        if first < 0 or second < 0:
            return False
        # The highest bit of the second becomes the sign.
        second -= (second & _INT32_END) << 1
        write_i64_le(writer, second << 32 | first)
        position += 2 * _WORD_BYTES
    while position < end:
        high: i64 = _HEX_DIGITS[text[position]]
        low: i64 = _HEX_DIGITS[text[position + 1]]
        if high == _NO_DIGIT or low == _NO_DIGIT:
            return False
        writer.append(u8(high << 4 | low))
        position += 2
    return True
