"""Convert any OTLP/JSON to OTLP/protobuf, by a parser that makes Python objects: a whole body at once, or slice by slice.

adapters/otlp/json_objects.py decides what a value becomes, or why it is refused.
"""

from typing import Final

import orjson
from google.protobuf.descriptor import Descriptor
from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.json_characters import CLOSING_BRACE, CLOSING_BRACKET, OPENING_BRACE, OPENING_BRACKET, QUOTE, SMALL_N
from adapters.codec.json_reader import SLICE_BYTES, JsonSlices, NotJson, may_hold_many_containers
from adapters.codec.text import quoted
from adapters.codec.wire import put_bytes
from adapters.errors import INVALID_JSON, NESTED_TOO_DEEP, Malformed
from adapters.otlp.json_fields import BYTES, HEX, TEXT, Field, Fields, fields_of
from adapters.otlp.json_large_values import LargeValues
from adapters.otlp.json_notes import Notes, Unfit
from adapters.otlp.json_objects import (
    STRING_VALUE_TAG,
    check_number,
    put_element,
    put_field,
    put_member,
    put_member_of,
    put_message,
    put_scalar,
    put_unfit,
    put_unfit_element,
)
from adapters.rules import Rules

# The deepest nesting of objects that are larger than a slice.
_LARGE_DEPTH_MAX: Final = 100


class LargeRequest:
    """A `LargeRequest` reads a request that is too large to be parsed at once. Larger values than a slice are read in parts."""

    def __init__(self, body: bytes, name: str, rules: Rules, notes: Notes, *, is_walked: bool) -> None:
        """Begin at the start. With `is_walked`, each value that holds items is read member by member, whatever its size."""
        self.is_walked: Final = is_walked
        self.name: Final = name
        self.notes: Final = notes
        self.slices: Final = JsonSlices(body, rules)
        self.values: Final = LargeValues(self.slices, name, notes)
        self.text: Final = body
        self.rules: Final = rules

    def to_wire(self, descriptor: Descriptor) -> bytes:
        """Return the request, serialized. Raises NotJson, Unfit, Malformed, Inexact."""
        slices = self.slices
        opening: i64 = slices.peek()
        if opening != OPENING_BRACE:
            raise _no_object(descriptor, is_array=opening == OPENING_BRACKET)
        writer = BytesWriter()
        self._put_message(writer, descriptor, 0)
        slices.end()
        return writer.getvalue()

    def _put_message(self, writer: BytesWriter, descriptor: Descriptor, depth: int) -> None:
        """Write the message of the object at the cursor, and move behind it."""
        if depth > _LARGE_DEPTH_MAX:
            raise Unfit(f"{descriptor.name} is nested too deep", NESTED_TOO_DEEP)
        slices = self.slices
        fields = fields_of(descriptor, self.rules.json_forms)
        slices.expect(OPENING_BRACE)
        if slices.peek() == CLOSING_BRACE:
            slices.position += 1
            return
        # The members that hold no items, by name: the last of a repeated name counts, as in a parser.
        parts: dict[str, BytesWriter] = {}
        if fields.is_metric:
            self.notes.begin_metric()
        while True:
            key = self.values.member_name()
            field = fields.by_name.get(key)
            part = writer
            if field is None:
                if not fields.is_item:
                    self.notes.skip(fields, key)
            elif field.holds_items:
                self.notes.lists += 1
            else:
                part = parts[key] = BytesWriter()
            written: i64 = len(part)
            start: i64 = slices.position
            try:
                self._put_value(part, fields, field, depth)
            except Unfit as unfit:
                if field is None or not (fields.is_item or fields.is_envelope):
                    raise
                slices.seek_back(start)
                slices.check_value()
                part.truncate(written)
                if field.is_exemplar:
                    self.notes.put_unfit_exemplar(part, field)
                elif fields.is_item:
                    part.write(self.notes.rejection(unfit))
                else:
                    put_unfit(part, fields, field, self.notes, unfit)
            if not slices.has_next(CLOSING_BRACE):
                break
        for part in parts.values():
            content = part.getvalue()
            self.rules.read(len(content))
            writer.write(content)
            self.rules.read(len(content))
        if fields.is_metric:
            self.notes.end_metric(writer)

    def _put_value(self, writer: BytesWriter, fields: Fields, field: Field | None, depth: int) -> None:
        """Write the value at the cursor, of a member of a message with `fields`. `field` is None if the member is unknown."""
        slices = self.slices
        first: i64 = slices.peek()
        start: i64 = slices.position
        is_walked = self.is_walked and field is not None and field.holds_items
        if is_walked and field is not None:
            is_walked = first == (OPENING_BRACKET if field.repeated else OPENING_BRACE)  # any other value does not fit
        if not is_walked and slices.skip_value(SLICE_BYTES):
            value = self.values.loaded(self.text[start : slices.position])
            if field is not None and value is not None:
                if fields.is_item:
                    fits = put_member(writer, field, value, self.notes)
                else:
                    fits = put_member_of(writer, fields, field, value, self.notes)
                if not fits:
                    raise self.notes.refusal()
            self.rules.read(slices.position - start)
        elif field is None:
            slices.check_value()
        elif field.message is None:
            self._put_large(writer, field, first)
        elif first == OPENING_BRACE and not field.repeated:
            inner = BytesWriter()
            self._put_message(inner, field.message, depth + 1)
            self._put_content(writer, field, inner)
            self.notes.has_data = self.notes.has_data or field.is_metric_data
        elif first == OPENING_BRACKET and field.repeated:
            self._put_elements(writer, fields, field, depth)
        else:
            raise Unfit(f"{field.name} must be {'an array' if field.repeated else 'an object'}", field.reason)

    def _put_elements(self, writer: BytesWriter, fields: Fields, field: Field, depth: int) -> None:
        """Write the array of messages at the cursor, and move behind it."""
        slices = self.slices
        is_lenient = fields.is_envelope or fields.is_request
        unfit: Unfit | None = None
        slices.expect(OPENING_BRACKET)
        assert field.message is not None
        if slices.peek() == CLOSING_BRACKET:
            slices.position += 1
            return
        while True:
            piece = b"" if self.is_walked and field.holds_items and not field.is_item else slices.next_elements()
            if piece:
                elements = self.values.loaded(piece)
                assert isinstance(elements, list)
                for element in elements:
                    if element is None:
                        self.notes.nulls += 1
                    elif is_lenient:
                        put_element(writer, fields, field, element, self.notes)
                    elif unfit is None and not put_field(writer, field, element, self.notes):
                        if field.is_exemplar:
                            self.notes.put_unfit_exemplar(writer, field)
                        else:
                            unfit = self.notes.refusal()  # the item is rejected, and the rest is only read
                self.rules.rest()
                if slices.peek() == CLOSING_BRACKET:
                    slices.position += 1
                    break
                continue
            if field.is_item:
                self.notes.count_item()
            first: i64 = slices.peek()
            self.rules.read(0)
            if first == OPENING_BRACE:
                self._put_element(writer, fields, field, depth)
            elif first == SMALL_N:
                slices.check_value()
                self.notes.nulls += 1
            elif is_lenient:
                slices.check_value()
                put_unfit_element(writer, fields, field, self.notes, Unfit(f"{field.name} must hold objects"))
            elif field.is_exemplar:
                slices.check_value()
                self.notes.put_unfit_exemplar(writer, field)
            else:
                raise Unfit(f"{field.name} must hold objects")
            if not slices.has_next(CLOSING_BRACKET):
                break
        if unfit is not None:
            raise unfit

    def _put_element(self, writer: BytesWriter, fields: Fields, field: Field, depth: int) -> None:
        """Write the object at the cursor, an element that is larger than a slice, and move behind it."""
        slices = self.slices
        start: i64 = slices.position
        assert field.message is not None
        inner = BytesWriter()
        try:
            self._put_message(inner, field.message, depth + 1)
        except Unfit as unfit:
            if not (fields.is_envelope or fields.is_request or field.is_exemplar):
                raise
            slices.seek_back(start)
            slices.check_value()
            if field.is_exemplar:
                self.notes.put_unfit_exemplar(writer, field)
            else:
                put_unfit_element(writer, fields, field, self.notes, unfit)
            return
        self._put_content(writer, field, inner)

    def _put_large(self, writer: BytesWriter, field: Field, first: i64) -> None:
        """Write the value at the cursor, which is larger than a slice, of a field that holds no messages. It becomes the same
        as a small value (adapters/otlp/json_objects.py). But numbers of this size do not fit, except attributes' integers."""
        if field.repeated:
            if first != OPENING_BRACKET:
                raise Unfit(f"{field.name} must be an array", field.reason)
            inner = BytesWriter()
            self._put_scalars(inner if field.packed else writer, field)
            if len(inner):
                self._put_content(writer, field, inner)
        elif field.kind == TEXT and first == QUOTE:
            self._put_bytes(writer, field, self.values.whole_text())
        elif field.kind == BYTES and first == QUOTE:
            self._put_bytes(writer, field, self.values.base64(field))
        elif field.kind == BYTES and (first == OPENING_BRACKET or first == OPENING_BRACE):
            self._put_bytes(writer, field, self.values.bytes_in_other_form(field, first))
            self.notes.forms += 1
        elif field.kind == HEX and not field.is_required_id:
            self.slices.check_value()
            self.notes.ids += 1
        elif field.is_attribute_integer:
            put_bytes(writer, STRING_VALUE_TAG, self.values.whole_number(field, first))
            self.notes.integers += 1
        else:
            raise Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes", field.reason)

    def _put_content(self, writer: BytesWriter, field: Field, inner: BytesWriter) -> None:
        """Write the content of `inner` as `_put_bytes` does. Taking it out of the writer is a copy of its own."""
        self.rules.rest()
        self._put_bytes(writer, field, inner.getvalue())

    def _put_bytes(self, writer: BytesWriter, field: Field, content: bytes) -> None:
        """Write content that may be as large as the body, between two rests: each message around it makes a copy."""
        self.rules.rest()
        put_bytes(writer, field.tag, content)
        self.rules.rest()

    def _put_scalars(self, writer: BytesWriter, field: Field) -> None:
        """Write the array of texts or numbers at the cursor, and move behind it."""
        slices = self.slices
        slices.expect(OPENING_BRACKET)
        if slices.peek() == CLOSING_BRACKET:
            slices.position += 1
            return
        while True:
            piece = slices.next_elements()
            if piece:
                elements = self.values.loaded(piece)
                assert isinstance(elements, list)
                for element in elements:
                    if element is None:
                        self.notes.nulls += 1
                    elif not (
                        put_scalar(writer, field, element, self.notes)
                        if field.packed
                        else put_field(writer, field, element, self.notes)
                    ):
                        raise self.notes.refusal()
                    self.rules.read(0)
                if slices.peek() == CLOSING_BRACKET:
                    slices.position += 1
                    return
                continue
            if field.kind != TEXT or slices.peek() != QUOTE:
                raise Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes", field.reason)
            put_bytes(writer, field.tag, self.values.whole_text())
            if not slices.has_next(CLOSING_BRACKET):
                return


def converted(body: bytes, descriptor: Descriptor, rules: Rules, notes: Notes, *, is_walked: bool = False) -> bytes:
    """Return the message that the JSON describes, serialized. `is_walked` is as in `LargeRequest`, for bodies that
    `may_repeat_members`. Raises Malformed, Inexact."""
    name = descriptor.name
    try:
        if is_walked or len(body) > SLICE_BYTES or may_hold_many_containers(body):
            return LargeRequest(body, name, rules, notes, is_walked=is_walked).to_wire(descriptor)
        value = orjson.loads(body)
        if not isinstance(value, dict):
            raise _no_object(descriptor, is_array=isinstance(value, list))
        writer = BytesWriter()
        if not put_message(writer, fields_of(descriptor, rules.json_forms), value, notes):
            raise notes.refusal()
        return writer.getvalue()
    except orjson.JSONDecodeError as error:
        check_number(error, notes)
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {len(body)} bytes, {error}") from None
    except NotJson as found:
        raise Malformed(
            INVALID_JSON, f"cannot decode {name}: {len(body)} bytes, {found.why} at byte {found.position}"
        ) from None
    except Unfit as unfit:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {unfit.message}") from None
    except RecursionError:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: nested too deep") from None


def _no_object(descriptor: Descriptor, *, is_array: bool) -> Malformed:
    member = descriptor.fields[0].json_name
    hint = "; an array of records of the native API is for /api/v1/telemetry/batch" if is_array else ""
    return Malformed(
        INVALID_JSON, f"cannot decode {descriptor.name}: it must be one JSON object, with the member {quoted(member)}{hint}"
    )


def may_repeat_members(body: bytes, descriptor: Descriptor, rules: Rules, notes: Notes) -> bool:
    """Return whether the body, which was read with `notes`, may have two members of one name in an object that hold items. A
    parser keeps only the last."""
    found: i64 = 0
    for name in fields_of(descriptor, rules.json_forms).item_names():
        start: i64 = 0
        while start < len(body):
            stop: i64 = start + SLICE_BYTES
            found += body.count(name, start, stop + len(name) - 1)
            start = stop
            rules.rest()
    return found > notes.lists
