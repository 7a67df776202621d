"""Read the announced size of a snappy block, and find its first elements, which can be decompressed as a block of their own.

A block is decompressed at once, and becomes up to 22 times as large. So its beginning is examined before.
Format: google/snappy's format_description.txt.
"""

from typing import Final

from mypy_extensions import i64

# More elements are not passed over: elements that short become little more than they are.
_ELEMENTS_MAX: Final = 500_000
_VARINT32_BYTES_MAX: Final = 5
_LITERAL: Final = 0
_COPY_OF_ONE_BYTE: Final = 1
_COPY_OF_TWO_BYTES: Final = 2
# A literal of more bytes has its size behind its tag.
_LITERAL_BYTES_MAX: Final = 60


def announced_bytes(block: bytes) -> tuple[int, int]:
    """Return the size that a block announces in a varint of 32 bits, and the position where the varint ends; (0, 0) if there is
    no such size."""
    announced: i64 = 0
    position: i64 = 0
    end: i64 = min(len(block), _VARINT32_BYTES_MAX)
    while position < end:
        byte: i64 = block[position]
        announced |= (byte & 127) << (7 * position)
        position += 1
        if byte < 128:
            return (0, 0) if announced >> 32 else (int(announced), int(position))
    return 0, 0


def first_elements(block: bytes, start: i64, content_bytes: i64) -> tuple[int, int]:
    """Pass over elements from `start` on until they become at least `content_bytes`. Return where they end and how many bytes
    they become; (0, 0) if the elements are too many, or the block ends before or is malformed."""
    end: i64 = len(block)
    position: i64 = start
    content: i64 = 0
    elements: i64 = 0
    while content < content_bytes:
        elements += 1
        if position >= end or elements > _ELEMENTS_MAX:
            return 0, 0
        tag: i64 = block[position]
        position += 1
        kind: i64 = tag & 3
        size: i64 = tag >> 2
        if kind == _LITERAL:
            if size >= _LITERAL_BYTES_MAX:
                size_bytes: i64 = size - _LITERAL_BYTES_MAX + 1
                if size_bytes > end - position:
                    return 0, 0
                size = 0
                at: i64 = position + size_bytes
                while at > position:
                    at -= 1
                    size = size << 8 | block[at]
                position += size_bytes
            size += 1
            position += size
        elif kind == _COPY_OF_ONE_BYTE:
            size = (size & 7) + 4
            position += 1
        else:
            size += 1
            position += 2 if kind == _COPY_OF_TWO_BYTES else 4
        content += size
    if position > end:
        return 0, 0
    return int(position), int(content)
