"""Check the host, the method and the target of a request in HTTP/1.1 and HTTP/2, and limit how much of a head is parsed.

Invariants:
1. A value that could be read as more than one part of an HTTP/1.1 head is refused
   (test_a_request_is_framed_in_one_way_or_refused, test_a_head_of_http_2_that_another_reads_as_two_is_refused).
2. A value that is longer than any honest one is not parsed: 60 KB of commas took 20 ms of the event loop
   (test_a_long_value_is_not_parsed).
"""

import re
from typing import Final
from urllib.parse import unquote

VALUE_BYTES_MAX: Final = 1024
"""The most bytes of a value whose parts are read, such as Content-Type, Host and a path."""
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?",
    re.ASCII,
)
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, 9.1)."""
TARGET: Final = re.compile(rb"/[!-\"$-~]*")
"""A path and a query, without a fragment: visible characters of ASCII (RFC 9112, 3.2.1)."""


def is_host(value: bytes) -> bool:
    """Return whether the value is a name or an address, with or without a port, or empty (RFC 9110, 7.2, and RFC 3986)."""
    return len(value) <= VALUE_BYTES_MAX and _HOST.fullmatch(value) is not None


def decoded_path(path: bytes) -> str:
    """Return a path of ASCII with its escapes decoded. A path that is longer than any of ours is returned as it is."""
    text = path.decode("ascii")
    return unquote(text) if len(path) <= VALUE_BYTES_MAX else text
