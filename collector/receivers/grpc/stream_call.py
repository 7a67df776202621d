"""A gRPC call that carries no telemetry, such as health checking and reflection: its handler exchanges messages freely.

While a client does not read its answers, no further answer is made for it.

Invariants:
1. At most _WAITING_MAX messages wait for their answers. Together they have at most as many bytes as one message may have
   (tests/unit/collector/receivers/grpc/test_stream_call.py, test_messages_that_wait_are_bounded).
2. Other tasks have their turn after each message (test_others_have_their_turn_after_each_message).
3. A call ends at its own deadline, whatever its handler waits for (test_calls_that_are_not_whole_end_at_their_own_deadline).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, Protocol

from collector.receivers.rpc_codes import (
    RPC_CANCELLED,
    RPC_DEADLINE_EXCEEDED,
    RPC_INVALID_ARGUMENT,
    RPC_RESOURCE_EXHAUSTED,
    RPC_UNAVAILABLE,
    RPC_UNIMPLEMENTED,
)
from collector.receivers.transport.http2_connection import ServerStream

# The prefix of a message: whether it is compressed, and its length.
PREFIX_BYTES: Final = 5
_MESSAGE_BYTES_MAX: Final = 64 * 1024
_WAITING_MAX: Final = 64

# Answers a call without telemetry. It returns when the call is done, and may raise CallFailed.
Handler = Callable[["StreamCall"], Awaitable[None]]


class CallFailed(Exception):
    """A call ends with an error."""

    def __init__(self, code: int, message: str) -> None:
        """`code` is a google.rpc.Code."""
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message


class GrpcWire(Protocol):
    """The connection of a call, as the call uses it."""

    def write_message(self, talk: "StreamCall", message: bytes) -> None: ...


class StreamCall(ServerStream):
    """A call as its handler sees it."""

    def __init__(
        self, stream_id: int, began: float, handler: Handler, timeout_s: float = inf, *, is_counted: bool = True
    ) -> None:
        """`is_counted` is whether the call counts among those of all connections. `timeout_s` is its client's."""
        super().__init__(stream_id, began)
        self.timeout_s: Final = timeout_s
        self.handler: Final = handler
        self.is_counted: Final = is_counted
        self.has_asked: bool = False  # whether a message came
        self.task: asyncio.Task[None] | None = None
        self.wire: GrpcWire | None = None
        self.has_answered: bool = False  # whether its answer has begun
        self._exceeded: CallFailed | None = None  # the error if its task was cancelled at its deadline
        self._wants_end: bool = False  # whether no other message may follow
        self._coming: bytes = b""
        self._messages: Final[deque[bytes]] = deque()
        self._waiting_bytes: int = 0  # of the messages
        self._happened: Final = asyncio.Event()
        self._problem: CallFailed | None = None

    # The handler's side.

    async def receive(self) -> bytes | None:
        """Return the next message; None if there are no more. Raises CallFailed if the received bytes are not a message."""
        while True:
            if self._messages:
                await asyncio.sleep(0)
                message = self._messages.popleft()
                self._waiting_bytes -= len(message)
                return message
            if self._problem is not None:
                raise self._problem
            if self.is_received or self.is_aborted:
                if self._coming and not self.is_aborted:
                    raise CallFailed(
                        RPC_INVALID_ARGUMENT, f"the call ends within a message: {len(self._coming)} bytes of it came"
                    )
                return None
            self._happened.clear()
            await self._happened.wait()

    async def receive_only(self) -> bytes:
        """Return the message of a method that takes exactly one, once the client has ended its half. Raises CallFailed."""
        self._wants_end = True
        message = await self.receive()
        if message is None:
            raise CallFailed(RPC_UNIMPLEMENTED, "the call has no message; this method takes exactly one")
        if await self.receive() is not None:
            raise CallFailed(RPC_UNIMPLEMENTED, "the call has several messages; this method takes exactly one")
        return message

    async def send(self, message: bytes) -> None:
        """Send a message, and wait until the client has room for more."""
        assert self.wire is not None
        self.wire.write_message(self, b"\0" + len(message).to_bytes(4, "big") + message)
        while self.rest and not self.is_aborted:
            self._happened.clear()
            await self._happened.wait()

    # The connection's side.

    def feed(self, piece: bytes) -> None:
        if self._problem is not None:
            return
        coming = self._coming + piece
        at = 0
        while len(coming) - at >= PREFIX_BYTES and self._problem is None:
            first = at + PREFIX_BYTES
            size = int.from_bytes(coming[at + 1 : first], "big")
            if coming[at]:
                self._problem = CallFailed(RPC_UNIMPLEMENTED, "only messages that are not compressed are taken here")
            elif size > _MESSAGE_BYTES_MAX:
                self._problem = CallFailed(
                    RPC_RESOURCE_EXHAUSTED, f"the message is {size} bytes; at most {_MESSAGE_BYTES_MAX} are taken here"
                )
            elif len(coming) < first + size:
                break
            elif len(self._messages) == _WAITING_MAX or self._waiting_bytes + size > _MESSAGE_BYTES_MAX:
                self._problem = CallFailed(
                    RPC_RESOURCE_EXHAUSTED,
                    f"{len(self._messages)} messages of {self._waiting_bytes} bytes wait for their answers; at most"
                    f" {_WAITING_MAX} messages of {_MESSAGE_BYTES_MAX} bytes may: read the answers first",
                )
            else:
                at = first + size
                self.has_asked = True
                self._messages.append(coming[first:at])
                self._waiting_bytes += size
        self._coming = b"" if self._problem is not None else coming[at:]
        self.wake()

    def end_if_late(self, waited_s: float, message_timeout_s: float) -> None:
        """End the call at its own deadline, or if no request that its handler can answer came within `message_timeout_s`."""
        is_waited_for = not self.is_received and (self._wants_end or not self.has_asked)
        if waited_s > self.timeout_s:
            self._exceeded = CallFailed(RPC_DEADLINE_EXCEEDED, f"the call's own deadline, {self.timeout_s:g} s, has passed")
            if self.task is not None:
                self.task.cancel()
        elif is_waited_for and waited_s > message_timeout_s:
            self._problem = CallFailed(RPC_DEADLINE_EXCEEDED, f"no whole request came within {message_timeout_s:g} s")
            self.wake()

    def cancelled(self) -> CallFailed:
        """Return why the call's task was cancelled."""
        if self._exceeded is not None:
            return self._exceeded
        return CallFailed(RPC_CANCELLED, "cancelled") if self.is_aborted else CallFailed(RPC_UNAVAILABLE, "the collector stops")

    def drained(self) -> None:
        self.wake()

    def quiet_since(self) -> float:
        """Return since when the call is quiet. A client that only watches may be evicted, since it can call again."""
        return self.waits_since if self.rest else self.began

    def wake(self) -> None:
        """Wake the handler: a message, the end, or room for more has come."""
        self._happened.set()
