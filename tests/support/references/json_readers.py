"""JSON read in one pass, beside the reader over Python objects: what the first reads, the second reads to the same bytes and
notes; what the second refuses, the first leaves to it.

Plain assertions, without pytest: the fuzzer, which has none, calls the same.
"""

from typing import Any, Final, cast

from support.references.otlp import REQUESTS
from support.references.twins import BATCH_ID, MESSAGE_BYTES_MAX, NOW

from adapters.codec.json_numbers import with_minus_zeros
from adapters.codec.json_scanner import NonPlain
from adapters.errors import Malformed
from adapters.native.records import RecordAdapter
from adapters.native.request import parsed_batch, parsed_record
from adapters.native.scan import scan_batch, scan_record
from adapters.otlp.json_large import converted
from adapters.otlp.json_notes import Inexact, Notes
from adapters.otlp.json_scan import scanned
from adapters.record import SOURCE_NATIVE, Adapted, Header
from adapters.rules import Rules
from collector.ingest.validate import LimitRules, Limits

NATIVE_ITEMS_MAX: Final = 1_000


def check_readers(signal: str, body: bytes, forms: int = 0) -> bool:
    """Return whether the body was read in one pass. `forms`: as `Rules.json_forms`."""
    descriptor: Any = cast("Any", REQUESTS[signal]).DESCRIPTOR
    rules = Rules()
    rules.json_forms = forms
    found = Notes(rules, is_exact=False)
    wire = scanned(body, descriptor, rules, found)
    expected = Notes(rules, is_exact=False)
    try:
        twin = converted(with_minus_zeros(body, rules), descriptor, rules, expected)
    except (Malformed, Inexact):
        assert wire is None
        return False
    if wire is None:
        return False
    assert twin == wire
    assert (expected.nulls, expected.integers, expected.ids) == (found.nulls, found.integers, found.ids)
    assert expected.unknown == found.unknown
    return True


def check_native(body: bytes, limits: Limits, *, is_batch: bool) -> int | None:
    """The same of the native API. Return how many records were parsed; None where the body was not read in one pass."""
    header = Header("acme", SOURCE_NATIVE, NOW, BATCH_ID)
    found_rules = _rules(limits)
    adapter = RecordAdapter(body, header, found_rules, MESSAGE_BYTES_MAX)
    adapter.is_batch = is_batch
    try:
        if is_batch:
            parsed = int(scan_batch(adapter, NATIVE_ITEMS_MAX))
        else:
            parsed = int(scan_record(adapter))
    except (NonPlain, IndexError):
        return None
    expected_rules = _rules(limits)
    if is_batch:  # what is malformed or refused raises: it should have been left to this reader
        expected = parsed_batch(body, header, expected_rules, MESSAGE_BYTES_MAX, NATIVE_ITEMS_MAX)
    else:
        expected = parsed_record(body, header, expected_rules, MESSAGE_BYTES_MAX)
    found = adapter.finish()
    assert _shown(expected) == _shown(found)
    return parsed


def _rules(limits: Limits) -> LimitRules:
    return LimitRules(limits, NOW, dead_letter_items_max=100, dead_letter_bytes_max=1 << 20)


def _shown(adapted: Adapted) -> Any:
    """All that an adapter says."""
    rejections = [(one.index, one.type, one.reason, one.message, one.service_id, one.payload) for one in adapted.rejections]
    parts = [(part.signal, part.payload, part.item_count, part.row_bytes) for part in adapted.parts]
    return parts, adapted.accepted, adapted.rejected, rejections, adapted.repaired
