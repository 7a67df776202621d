"""A message of the broker, as gateways append it.

This module is compiled, and so not a part of contract.py: every request makes a message, and a NamedTuple is made by
interpreted code.
"""

from typing import Final


class Message:
    """One serialized batch for a topic: a TelemetryBatch, or a DeadLetterBatch. Messages with the same fields are equal.

    `ordered`: all ordered messages of a topic go to one partition, always the same.
    `fingerprint`: messages of a topic with the same fingerprint go to one partition. Empty: to any partition.
    """

    def __init__(self, topic: str, payload: bytes, ordered: bool = False, fingerprint: bytes = b"") -> None:
        self.topic: Final = topic
        self.payload: Final = payload
        self.ordered: Final = ordered
        self.fingerprint: Final = fingerprint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Message{self._fields()!r}"

    def _fields(self) -> tuple[str, bytes, bool, bytes]:
        return self.topic, self.payload, self.ordered, self.fingerprint
