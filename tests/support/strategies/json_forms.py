"""JSON documents in the forms that their readers allow: every one says the same.

`Forms` of tests/support/strategies/wire_forms.py, for JSON. Source: RFC 8259; protobuf.dev, "ProtoJSON Format"; the OTLP
specification, "JSON Protobuf Encoding".
"""

import json
import math
import random
from collections.abc import Collection
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from support.references.otlp_json import value_of

# Of the text of any document.
TEXT_ODDITIES: Final = ("spaces", "escapes", "key_twice", "any_order")
# Of a message, besides.
MESSAGE_ODDITIES: Final = ("null_field", "empty_list", "empty_object", "default_written", "unknown_key", "other_number")

_DEFAULTS: Final = {
    FieldDescriptor.TYPE_STRING: "",
    FieldDescriptor.TYPE_BYTES: "",
    FieldDescriptor.TYPE_BOOL: False,
    FieldDescriptor.TYPE_DOUBLE: 0.0,
}


class JsonForms:
    """Writes documents with some of the oddities, each with that probability wherever it can be."""

    def __init__(self, lot: random.Random, oddities: Collection[str], oddness: float = 0.5) -> None:
        self._lot = lot
        self._oddities = oddities
        self._oddness = oddness

    def is_(self, oddity: str) -> bool:
        """Whether it is here."""
        return oddity in self._oddities and self._lot.random() < self._oddness

    def message(self, message: Message) -> bytes:
        """OTLP/JSON of a message."""
        return self.text(self._object(message)).encode()

    def text(self, value: Any) -> str:
        """JSON of a value. Dictionaries keep their order, unless that is odd too."""
        if isinstance(value, dict):
            members = list(value.items())
            if self.is_("any_order"):
                self._lot.shuffle(members)
            parts = []
            for key, entry in members:
                if self.is_("key_twice"):  # the last one wins
                    parts.append(f"{self._string(key)}{self._space()}:null")
                parts.append(f"{self._string(key)}{self._space()}:{self._space()}{self.text(entry)}")
            return "{" + self._space() + f",{self._space()}".join(parts) + self._space() + "}"
        if isinstance(value, list):
            return "[" + f",{self._space()}".join(self._space() + self.text(entry) for entry in value) + "]"
        if isinstance(value, str):
            return self._string(value)
        return json.dumps(value)

    def _space(self) -> str:
        return self._lot.choice([" ", "\n", "\t", "\r\n"]) if self.is_("spaces") else ""

    def _string(self, value: str) -> str:
        return json.dumps(value, ensure_ascii=self.is_("escapes"))

    def _object(self, message: Message) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if field.is_repeated:
                if value:
                    made[field.json_name] = [self._value(field, entry) for entry in value]
                elif self.is_("empty_list"):
                    made[field.json_name] = []
                elif self.is_("null_field"):
                    made[field.json_name] = None
            elif message.HasField(field.name) if field.has_presence else (value or field.type == FieldDescriptor.TYPE_DOUBLE):
                made[field.json_name] = self._value(field, value)
            elif self.is_("null_field"):
                made[field.json_name] = None
            elif field.message_type is not None:
                if field.containing_oneof is None and self.is_("empty_object"):
                    made[field.json_name] = {}
            elif not field.has_presence and self.is_("default_written"):
                made[field.json_name] = _DEFAULTS.get(field.type, 0)
        if self.is_("unknown_key"):
            made[self._lot.choice(["later", "row", "tenant_id", "metrics_name"])] = self._lot.choice(
                [None, [], {}, [None], "x", 1]
            )
        return made

    def _value(self, field: Any, value: Any) -> Any:
        if field.message_type is not None:
            return self._object(value)
        if isinstance(value, float) and math.isfinite(value) and self.is_("other_number"):
            return repr(value)
        if isinstance(value, int) and not isinstance(value, bool) and self.is_("other_number"):
            return self._lot.choice([value, str(value)])
        return value_of(field, value, lambda: not self.is_("other_number"))
