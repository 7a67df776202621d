"""Protobuf messages whose texts need not be UTF-8, read by protobuf's own parser: the slow twin of
adapters/codec/text_repair.py.

The parser is given the same message types with `bytes` in the place of each `string`; so it says itself which bytes are a text.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import Message


def repaired(class_: Any, body: bytes) -> bytes:
    """Return the message as protobuf's encoder writes it, U+FFFD in the place of each invalid sequence of a text. Raises
    DecodeError."""
    message = _twin_of(class_).FromString(body)
    _repair(message, class_.DESCRIPTOR)
    written: bytes = message.SerializeToString()
    return written


def _repair(message: Message, descriptor: Any) -> None:
    for field, value in message.ListFields():
        real = descriptor.fields_by_number[field.number]
        if field.message_type is not None:
            for entry in value if field.is_repeated else (value,):
                _repair(entry, real.message_type)
        elif real.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                value[:] = [_text(entry) for entry in value]
            else:
                setattr(message, field.name, _text(value))


def _text(value: bytes) -> bytes:
    return value.decode("utf-8", "replace").encode()


@cache
def _twin_of(class_: Any) -> Any:
    pool = descriptor_pool.DescriptorPool()
    _add(pool, class_.DESCRIPTOR.file, set())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(class_.DESCRIPTOR.full_name))


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, added)
    copy = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copy)
    for message in copy.message_type:
        _with_bytes(message)
    pool.Add(copy)


def _with_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type == FieldDescriptorProto.TYPE_STRING:
            field.type = FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _with_bytes(nested)
