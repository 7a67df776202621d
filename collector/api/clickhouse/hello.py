"""Answer the first query of clickhouse-go, which asks for the server's name, version, revision and time zone.

Over HTTP, the client reads the answer to this query at its own revision of the native protocol, which it sends in
client_protocol_version. It reads every later answer at the revision that this answer names. The embedded engine writes the
format Native of revision 0. So the answer names revision 0, but is itself written for the client's revision.
"""

import re
import struct
from typing import Final

_HELLO: Final = re.compile(r"\s*SELECT\s+displayName\(\),\s*version\(\),\s*revision\(\),\s*timezone\(\)\s*;?\s*", re.IGNORECASE)
# From this revision on, each column has a byte that says whether its serialization is a custom one.
_CUSTOM_SERIALIZATION: Final = 54454
_BLOCK_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_REVISION_OF_NATIVE: Final = 0


def is_hello(sql: str, format_: str, client_revision: int) -> bool:
    """Return whether a query is this first query, of a client that reads the answer at its own revision."""
    return client_revision > 0 and format_ == "Native" and _HELLO.fullmatch(sql) is not None


def hello(version: str, timezone: str, client_revision: int) -> bytes:
    """Return the answer: one block of one row in the format Native, for `client_revision`."""
    columns = (
        ("displayName()", "String", _text("infrasage-collector")),
        ("version()", "String", _text(version)),
        ("revision()", "UInt32", struct.pack("<I", _REVISION_OF_NATIVE)),
        ("timezone()", "String", _text(timezone)),
    )
    custom = b"\x00" if client_revision >= _CUSTOM_SERIALIZATION else b""
    block = b"".join(_text(name) + _text(type_) + custom + data for name, type_, data in columns)
    return _BLOCK_INFO + bytes([len(columns), 1]) + block


def _text(text: str) -> bytes:
    """Return a text of less than 128 bytes as Native has it: with its length before it."""
    data = text.encode()
    assert len(data) < 0x80  # so its length is a varint of one byte
    return bytes([len(data)]) + data
