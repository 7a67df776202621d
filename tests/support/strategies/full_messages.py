"""Messages in which every field is set, made from their descriptors: what a test of each field needs."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from support.strategies.otlp import fit

# As deep as a log record's body whose value is a list of lists.
_DEPTH_MAX: Final = 9


class FullMessages:
    """Makes messages; members of a oneof take turns, a list of messages has as many as each of their members needs."""

    def __init__(self, value_of: Callable[[FieldDescriptor, int], Any | None]) -> None:
        """`value_of` is the value of a scalar, which is the given one of its field; None: of no importance."""
        self._value_of = value_of
        self._turns: Counter[str] = Counter()

    def message(self, descriptor: Any, depth: int = 0) -> Message:
        """A message of that type, with all that is in it."""
        made = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if field.containing_oneof is None:
                self._set(made, field, depth)
        for oneof in descriptor.oneofs:
            fields = [field for field in oneof.fields if field.message_type is None or depth < _DEPTH_MAX]
            if fields:
                self._set(made, fields[self._turn(oneof.full_name) % len(fields)], depth)
        fit(made)
        return made

    def _turn(self, name: str) -> int:
        self._turns[name] += 1
        return self._turns[name] - 1

    def _set(self, made: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None:
            if depth >= _DEPTH_MAX:
                return
            members = max([len(oneof.fields) for oneof in field.message_type.oneofs], default=1)
            count = min(max(members, 2), 5) if field.is_repeated else 1
            for _ in range(count):
                value = self.message(field.message_type, depth + 1)
                if field.is_repeated:
                    getattr(made, field.name).append(value)
                else:
                    getattr(made, field.name).CopyFrom(value)
        elif field.is_repeated:
            getattr(made, field.name).extend(self._scalar(field) for _ in range(3))
        else:
            setattr(made, field.name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        turn = self._turn(field.full_name)
        value = self._value_of(field, turn)
        if value is not None:
            return value
        if field.type == FieldDescriptor.TYPE_STRING:
            return f"{field.name}-{turn}"
        if field.type == FieldDescriptor.TYPE_BYTES:
            return turn.to_bytes(4, "big")
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return turn + 0.5
        if field.type == FieldDescriptor.TYPE_BOOL:
            return True
        if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT32):
            return -1 - turn
        return 1 + turn % 2 if field.type == FieldDescriptor.TYPE_ENUM else 1 + turn
