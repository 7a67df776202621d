"""The bytes of JSON's characters, for all modules that read or write JSON.

Each is a literal, so compiled loops that import one compare with a number, as with one of their own module.
"""

from typing import Final

SPACE: Final = 0x20
QUOTE: Final = 0x22
PLUS: Final = 0x2B
COMMA: Final = 0x2C
MINUS: Final = 0x2D
POINT: Final = 0x2E
ZERO: Final = 0x30
NINE: Final = 0x39
COLON: Final = 0x3A
OPENING_BRACKET: Final = 0x5B
BACKSLASH: Final = 0x5C
CLOSING_BRACKET: Final = 0x5D
SMALL_D: Final = 0x64
SMALL_E: Final = 0x65
SMALL_N: Final = 0x6E
SMALL_U: Final = 0x75
OPENING_BRACE: Final = 0x7B
CLOSING_BRACE: Final = 0x7D

# This bit makes a capital letter a small one.
CASE: Final = 0x20
# ASCII's bytes are below.
ASCII_END: Final = 0x80
