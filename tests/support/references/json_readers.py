"""OTLP/JSON read in one pass, beside the reader over Python objects: what the first reads, the second reads to the
same bytes and notes; what the second refuses, the first leaves to it.

Plain assertions, without pytest: the fuzzer, which has none, calls the same.
"""

from typing import Any, cast

from support.references.otlp import REQUESTS

from adapters.errors import Malformed
from adapters.otlp.json_objects import Inexact, Notes, converted
from adapters.otlp.json_scan import scanned
from adapters.rules import Rules


def check_readers(signal: str, body: bytes, forms: int = 0) -> bool:
    """Return whether the body was read in one pass. `forms`: as `Rules.json_forms`."""
    descriptor: Any = cast("Any", REQUESTS[signal]).DESCRIPTOR
    rules = Rules()
    rules.json_forms = forms
    found = Notes(is_exact=False)
    wire = scanned(body, descriptor, rules, found)
    expected = Notes(is_exact=False)
    try:
        twin = converted(body, descriptor, rules, expected)
    except (Malformed, Inexact):
        assert wire is None
        return False
    if wire is None:
        return False
    assert twin == wire
    assert (expected.nulls, expected.integers, expected.ids) == (found.nulls, found.integers, found.ids)
    assert expected.unknown == found.unknown
    return True
