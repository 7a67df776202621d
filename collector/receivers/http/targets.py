"""What HTTP/1.1 and HTTP/2 allow as the host, the method and the target of a request.

Invariants:
1. What could be read as more than one part of an HTTP/1.1 head is none of them
   (test_a_request_is_framed_in_one_way_or_refused, test_a_head_of_http_2_that_another_reads_as_two_is_refused).
"""

import re
from typing import Final

HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?",
    re.ASCII,
)
"""A name or an address, and a port, or nothing (RFC 9110, 7.2, and RFC 3986)."""
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, 9.1)."""
TARGET: Final = re.compile(rb"/[!-\"$-~]*")
"""A path and a query, without a fragment: visible characters of ASCII (RFC 9112, 3.2.1)."""
