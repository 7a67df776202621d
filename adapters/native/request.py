"""Adapt requests of the native JSON API: one record, or an array of records, as docs/use/api.md describes it.

Invariants:
1. Whatever the body, the result is an `Adapted` or a `RequestRefused` (test_any_bytes_are_read_or_refused).
2. A bad record never causes its neighbours to be rejected (test_bad_records_do_not_take_good_ones_down).

A metric, trace, profile or slo becomes a gauge point; its trace id becomes an exemplar with the point's time and value. A log
or event becomes a log record; an event's name is its metric_name, else its attribute event.name, else "event". A member for
which the OTLP message has no field becomes an attribute: infrasage.metric_name, infrasage.value, infrasage.body, and
infrasage.trace_id if the trace id is neither 32 hex digits nor only zeros. These replace attributes sent under the same keys.
An attribute severity_text, severity or level that is text also sets the severity of a log record.

JSON is RFC 8259's, in UTF-8. Null is absent. The last value of a repeated name counts. An attribute's integer of any size keeps
its digits.

A rejected record's payload is its exact JSON: the array's element without the space around it, or the body of a single record.
`adapt` reads it again.
"""

from collections.abc import Callable
from hashlib import blake2b
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Final

import orjson
from mypy_extensions import i64

from adapters.codec.json_characters import CLOSING_BRACKET, OPENING_BRACE, OPENING_BRACKET, QUOTE
from adapters.codec.json_numbers import INTEGER_DIGITS_MAX, is_whole, quote_constants, quote_long_numbers
from adapters.codec.json_parts import check_json_parts, holds_more_objects
from adapters.codec.json_reader import (
    BEYOND_A_DOUBLE,
    CONSTANTS,
    SLICE_BYTES,
    JsonSlices,
    NotJson,
    may_hold_many_containers,
    shallow_json,
)
from adapters.codec.json_repair import repaired_json
from adapters.codec.json_scanner import NonPlain
from adapters.codec.text import quoted, without_bom
from adapters.errors import BATCH_TOO_LARGE, INVALID_JSON, INVALID_RECORD, Malformed, RequestRefused
from adapters.native.members import otlp_hint
from adapters.native.records import RecordAdapter
from adapters.native.scan import scan_batch, scan_record
from adapters.native.values import NotFinite, shown
from adapters.record import Adapted, Header
from adapters.rules import Rules

# Up to this size, a body with NaN, an infinity or a number beyond float64 is read once more, several times slower and without a
# rest. In a larger body, such numbers are put in quotes, and are found again by a prefix: a digest of the body, which cannot be
# in the body itself.
NAMED_NUMBERS_BYTES_MAX: Final = SLICE_BYTES + 2  # and the brackets of a slice
_MARK_BYTES: Final = 16
# More bytes than each name of `otlp_hint` has.
_FIRST_NAME_BYTES_MAX: Final = 32
# A single record of at most this size is read in one pass.
_SCANNED_BYTES_MAX: Final = 64 << 10
# A parser takes 0.1 s for a million objects, arrays and members, without a pause, and no real attributes have that many.
RECORD_OBJECTS_MAX: Final = 1 << 17

_TOO_MANY_OBJECTS: Final = f"a record holds at most {RECORD_OBJECTS_MAX} objects, arrays and members; got more: send fewer"


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt one JSON object. Raises Malformed if the body is not JSON."""
    body = without_bom(body, rules)
    try:
        return _adapt_one(body, header, rules, message_bytes_max)
    except Malformed as malformed:
        refusal = malformed
    return _adapt_one(_repaired(body, rules, refusal), header, rules, message_bytes_max)


def _repaired(body: bytes, rules: Rules, refusal: Malformed) -> bytes:
    """Return a repaired body that a parser may read. Raises `refusal` if nothing can be repaired."""
    repaired = shallow_json(repaired_json(body, rules), rules, allows_constants=True)
    if repaired is body:
        raise refusal
    return repaired


def _adapt_one(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    adapter = RecordAdapter(body, header, rules, message_bytes_max)
    if len(body) <= _SCANNED_BYTES_MAX:
        check_json_parts(body, rules.request_elements_max, rules)
        if _is_scanned(lambda: scan_record(adapter), rules):
            return adapter.finish()
    return parsed_record(body, header, rules, message_bytes_max)


def parsed_record(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Do what `adapt` does, by way of Python objects. Raises Malformed."""
    adapter = RecordAdapter(body, header, rules, message_bytes_max)
    if len(body) > adapter.record_bytes_max:
        check_json_parts(body, rules.request_elements_max, rules)
        adapter.reject_large(_hint_of_large(body, rules))
    elif holds_more_objects(body, RECORD_OBJECTS_MAX, rules):
        adapter.reject_large(_hint_of_large(body, rules) or _TOO_MANY_OBJECTS)
    else:
        adapter.add(_document(body, rules))
    return adapter.finish()


def adapt_batch(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    """Adapt a JSON array of at most `batch_items_max` records. Raises Malformed if the body is not JSON, and RequestRefused if
    it is not an array or has too many records."""
    body = without_bom(body, rules)
    try:
        return _adapt_array(body, header, rules, message_bytes_max, batch_items_max)
    except Malformed as malformed:
        refusal = malformed
    return _adapt_array(_repaired(body, rules, refusal), header, rules, message_bytes_max, batch_items_max)


def _is_scanned(scan: Callable[[], i64], rules: Rules) -> bool:
    """Return whether the body was read in one pass. If not, its repairs are reset, since it is read again."""
    repaired = rules.repaired
    try:
        scan()
    except (NonPlain, IndexError):  # IndexError: the text ends too soon
        rules.restore_repairs(repaired)
        return False
    return True


def _adapt_array(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    check_json_parts(body, rules.request_elements_max, rules)
    adapter = RecordAdapter(body, header, rules, message_bytes_max)
    adapter.is_batch = True
    if _is_scanned(lambda: scan_batch(adapter, batch_items_max), rules):
        return adapter.finish()
    return parsed_batch(body, header, rules, message_bytes_max, batch_items_max)


def parsed_batch(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    """Do what `adapt_batch` does, by way of Python objects. Raises Malformed, RequestRefused."""
    if len(body) > SLICE_BYTES or may_hold_many_containers(body):
        return _adapt_in_slices(body, header, rules, message_bytes_max, batch_items_max)
    document = _document(body, rules)
    if not isinstance(document, list):
        raise RequestRefused(INVALID_RECORD, f"a batch must be a JSON array of records; got {shown(document)}{_hint(document)}")
    if len(document) > batch_items_max:
        raise RequestRefused(
            BATCH_TOO_LARGE, f"a batch holds at most {batch_items_max} records (http.batch_items_max); got {len(document)}"
        )
    adapter = RecordAdapter(body, header, rules, message_bytes_max)
    adapter.is_batch = True
    for record in document:
        adapter.add(record)
    return adapter.finish()


def _hint(document: object) -> str:
    """Return a hint what to send instead of an object."""
    if isinstance(document, dict):
        if "service_id" in document:
            return ": send a record by itself to /api/v1/telemetry"
        for name, value in document.items():
            if isinstance(value, list):
                return f": {otlp_hint(name) or f'send the array {quoted(name)} by itself'}"
    return ""


def _adapt_in_slices(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    """Adapt a batch that is too large to be parsed at once. Raises Malformed, RequestRefused."""
    adapter = RecordAdapter(body, header, rules, message_bytes_max)
    adapter.is_batch = True
    slices = JsonSlices(body, rules)
    try:
        opening = slices.peek()
        if opening == OPENING_BRACE:
            hint = otlp_hint(_first_name(slices)) or "send the array by itself"
            raise RequestRefused(INVALID_RECORD, f"a batch must be a JSON array of records; got object: {hint}")
        if opening != OPENING_BRACKET:
            raise _malformed(body, f"no array of records at character {int(slices.position)}")
        slices.position += 1
        is_more = slices.peek() != CLOSING_BRACKET
        if not is_more:
            slices.position += 1
        while is_more:
            is_more = _add_slice(adapter, slices)
            if adapter.index > batch_items_max:
                raise RequestRefused(
                    BATCH_TOO_LARGE, f"a batch holds at most {batch_items_max} records (http.batch_items_max); got more"
                )
        slices.end()
    except NotJson as found:
        raise _malformed(body, f"{found.why} at character {found.position}") from None
    return adapter.finish()


def _hint_of_large(body: bytes, rules: Rules) -> str:
    """Return a message for a body that is too large for a record and seems to be something else; "" if it does not."""
    slices = JsonSlices(body, rules)
    opening: i64 = slices.peek()
    hint = ""
    if opening == OPENING_BRACKET:
        hint = "an array of records is for /api/v1/telemetry/batch"
    elif opening == OPENING_BRACE:
        hint = otlp_hint(_first_name(slices))
    return f"the body is too large for a record; {hint}" if hint else ""


def _first_name(slices: JsonSlices) -> str:
    """Return the first name of the object at the cursor, or empty if it is long."""
    slices.position += 1
    if slices.peek() != QUOTE:
        return ""
    start: i64 = slices.position + 1
    name, quote, _ = slices.text[start : start + _FIRST_NAME_BYTES_MAX].partition(b'"')
    return name.decode("utf-8", "replace") if quote else ""


def _add_slice(adapter: RecordAdapter, slices: JsonSlices) -> bool:
    """Add the next records of the array in which the cursor is. Return whether more follow. Raises NotJson, Malformed."""
    start: i64 = slices.position
    piece = slices.next_elements()
    if not piece:
        if slices.skip_value(adapter.record_bytes_max, RECORD_OBJECTS_MAX):
            text = slices.text[start : slices.position]
            if holds_more_objects(text, RECORD_OBJECTS_MAX, slices.rules):
                adapter.reject_large(_TOO_MANY_OBJECTS)
            else:
                adapter.add(_parsed(text, slices.rules))
        else:
            slices.skip_value(slices.size, slices.size)
            adapter.reject_large(_TOO_MANY_OBJECTS if slices.position - start <= adapter.record_bytes_max else "")
        return slices.has_next(CLOSING_BRACKET)
    records = _parsed(piece, slices.rules)
    assert isinstance(records, list)
    for record in records:
        adapter.add(record)
    slices.rules.rest()
    if slices.peek() == CLOSING_BRACKET:
        slices.position += 1
        return False
    return True


def _float(token: str) -> object:
    value = float(token)
    return value if value - value == 0.0 else NotFinite(token)


def _int(token: str) -> object:
    return int(token) if len(token) <= INTEGER_DIGITS_MAX else NotFinite(token)


def _no_value(_: object) -> None:
    return None


_DECODER: Final = JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=NotFinite)
_CHECKER: Final = JSONEncoder(ensure_ascii=False, default=_no_value)


def _document(body: bytes, rules: Rules) -> object:
    """Return a body's JSON, with `NotFinite` for numbers that are not finite. Raises Malformed."""
    check_json_parts(body, rules.request_elements_max, rules)
    rules.rest()
    document = _parsed(body, rules)
    rules.rest()
    return document


def _parsed(body: bytes, rules: Rules) -> object:
    """Return the JSON of a body, or of a slice of it. Raises Malformed."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fault = error.msg
        position = error.pos
    try:
        text = body.decode()
    except UnicodeDecodeError as unreadable:
        raise _malformed(body, f"not UTF-8 at byte {unreadable.start}") from None
    if BEYOND_A_DOUBLE in fault or text.startswith(("NaN", "Infinity"), position):
        if len(body) <= NAMED_NUMBERS_BYTES_MAX:
            return _document_with_names(body, text)
        return _large_document_with_names(body, position, rules)
    raise _malformed(body, f"{fault} at character {position}")


def _document_with_names(body: bytes, text: str) -> object:
    """Return a body's JSON by Python's parser, which reads these tokens. Raises Malformed if RFC 8259 or orjson refuse it."""
    try:
        document: object = _DECODER.decode(text)
        # orjson would have refused a lone surrogate, which UTF-8 has no bytes for.
        _CHECKER.encode(document).encode()
    except JSONDecodeError as error:
        raise _malformed(body, f"{error.msg} at character {error.pos}") from None
    except UnicodeEncodeError:
        raise _malformed(body, "a lone surrogate in a string") from None
    except RecursionError:
        raise _malformed(body, "nested too deep") from None
    return document


def _large_document_with_names(body: bytes, position: int, rules: Rules) -> object:
    """Return the same for a large body, whose first such token is at `position`. Raises Malformed."""
    rules.rest()
    mark = blake2b(body, digest_size=_MARK_BYTES).hexdigest()
    rules.rest()
    quoted_body = quote_long_numbers(quote_constants(body, rules, mark.encode()), rules, mark.encode())
    rules.rest()
    try:
        document: object = orjson.loads(quoted_body)
    except orjson.JSONDecodeError as error:
        raise _malformed(body, f"{error.msg} behind character {position}") from None
    rules.rest()
    top: list[object] = [document]
    pending: list[object] = [top]
    while pending:
        container = pending.pop()
        if isinstance(container, dict):
            for key, member in container.items():
                rules.read(0)
                if isinstance(member, (dict, list)):
                    pending.append(member)
                elif isinstance(member, str) and member.startswith(mark):
                    container[key] = _marked_number(member.removeprefix(mark))
        elif isinstance(container, list):
            for index, member in enumerate(container):
                rules.read(0)
                if isinstance(member, (dict, list)):
                    pending.append(member)
                elif isinstance(member, str) and member.startswith(mark):
                    container[index] = _marked_number(member.removeprefix(mark))
    return top[0]


def _marked_number(token: str) -> object:
    """Return the value that `_DECODER` makes of a number's text."""
    if token.encode() in CONSTANTS:
        return NotFinite(token)
    return _int(token) if is_whole(token) else _float(token)


def _malformed(body: bytes, fault: str) -> Malformed:
    return Malformed(INVALID_JSON, f"cannot decode JSON: {len(body)} bytes, {fault}")
