"""The tags of an AnyValue and of the messages within it: field number << 3 | wire type (opentelemetry-proto, common.proto)."""

from typing import Final

# Fields of a KeyValue.
KEY: Final = 0x0A
VALUE: Final = 0x12
KEY_STRINDEX: Final = 0x18
# Fields of an AnyValue.
STRING: Final = 0x0A
BOOL: Final = 0x10
INT: Final = 0x18
DOUBLE: Final = 0x21
ARRAY: Final = 0x2A
KVLIST: Final = 0x32
BYTES: Final = 0x3A
STRINDEX: Final = 0x40
# The field of an ArrayValue, and of a KeyValueList.
ENTRY: Final = 0x0A
