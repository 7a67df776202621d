"""What clickhouse-go asks first, in the form in which it reads the answer.

Over HTTP it reads the answer to this question at its own revision of the native protocol, which it names in
client_protocol_version, and everything after that at the revision which the answer names. The embedded engine writes Native as
of revision 0. So the answer names 0, and is itself written as of the client's revision.
"""

import re
import struct
from typing import Final

_HELLO: Final = re.compile(r"\s*SELECT\s+displayName\(\),\s*version\(\),\s*revision\(\),\s*timezone\(\)\s*;?\s*", re.IGNORECASE)
# From this revision on a column says whether its serialization is a custom one.
_CUSTOM_SERIALIZATION: Final = 54454
_BLOCK_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_REVISION_OF_NATIVE: Final = 0


def is_hello(sql: str, format_: str, client_revision: int) -> bool:
    """Return whether this is that question of a client which reads the answer at a revision of its own."""
    return client_revision > 0 and format_ == "Native" and _HELLO.fullmatch(sql) is not None


def hello(version: str, timezone: str, client_revision: int) -> bytes:
    """Return the answer, one block of one row."""
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
    data = text.encode()
    assert len(data) < 0x80  # a varint of one byte
    return bytes([len(data)]) + data
