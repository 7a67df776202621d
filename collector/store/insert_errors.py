"""Translate ClickHouse's errors about an insert: bytes that it refuses, and too little memory or disk."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clickhouse_connect.driver.exceptions import DatabaseError

from collector.store.contract import StoreOutOfMemory, StoreOutOfSpace, StoreRefusedData
from collector.store.server import ServerOptions, describe

# The engine's errors for invalid bytes. After every other error the insert is repeated, since the cause may end by itself.
_DATA_ERRORS: Final = frozenset(
    [
        "ATTEMPT_TO_READ_AFTER_EOF",
        "CANNOT_READ_ALL_DATA",
        "INCORRECT_DATA",
        "PROTOBUF_BAD_CAST",
        "TOO_LARGE_STRING_SIZE",  # a batch id that is not 16 bytes
        "UNKNOWN_PROTOBUF_FORMAT",
        "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    ]
)

# The errors of an insert with too little memory. CANNOT_MREMAP (240) is from the system call that enlarges a buffer.
_MEMORY_ERRORS: Final = frozenset(["MEMORY_LIMIT_EXCEEDED", "CANNOT_ALLOCATE_MEMORY", "CANNOT_MREMAP"])
# The error of an insert with too little disk space. ClickHouse reserves about twice the insert's bytes before it begins.
_SPACE_ERROR: Final = "NOT_ENOUGH_SPACE"
# The limit of one query, `max_memory_usage`, in the messages of newer and older versions. A user and a server have other
# limits.
_OF_ONE_QUERY: Final = re.compile(r"query memory limit exceeded|memory limit \(for query\) exceeded", re.IGNORECASE)


@contextmanager
def refusals() -> Iterator[None]:
    """Raise ClickHouse's errors about the bytes themselves as StoreRefusedData."""
    try:
        yield
    except DatabaseError as error:
        if error.name in _DATA_ERRORS:
            raise StoreRefusedData(describe(error)) from error
        raise


@contextmanager
def shortages(server: ServerOptions | None) -> Iterator[None]:
    """Raise ClickHouse's errors about memory and disk as StoreShortage. `server` is None for the embedded engine."""
    try:
        yield
    except DatabaseError as error:
        message = describe(error) if server is None else f"{server}: {describe(error)}"
        if error.name in _MEMORY_ERRORS:
            of_one_query = _OF_ONE_QUERY.search(str(error)) is not None
            raise StoreOutOfMemory(message, of_this_insert=of_one_query) from error
        if error.name == _SPACE_ERROR:
            raise StoreOutOfSpace(message) from error
        raise
