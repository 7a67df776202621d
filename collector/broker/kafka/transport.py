"""A connection to one broker for large answers: an answer is read directly into its buffer.

aiokafka opens the connection (TLS, SASL, the broker's API versions) and then hands over the socket, because its own reader
copies every byte of an answer six times. The wire has Kafka's framing: a length, then that many bytes. Each request has an id
that the answer repeats. Source: kafka.apache.org, "Kafka protocol guide".

Invariants:
1. There is one request at a time, and an answer to another request ends the connection
   (test_an_answer_to_another_request_ends_the_connection).
2. Any error, and any answer that is not awaited to its end, ends the connection (test_what_is_no_answer_is_not_waited_for,
   test_who_does_not_wait_ends_the_connection).
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final, Self, cast

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError

from collector.broker.kafka.options import KafkaOptions, connection

# A broker sends at most one batch more than the request allows. A larger length means that the bytes are no answer.
_ANSWER_BYTES_MAX: Final = 1 << 30
_LENGTH: Final = struct.Struct(">i")
_HEAD: Final = struct.Struct(">hhi")  # the request's key, its version, its id

# Called with an answer, without its id, and how many of its bytes have arrived.
ReceiveCallback = Callable[[memoryview, int], None]


class Frames(asyncio.BufferedProtocol):
    """A connection that sends requests and reads their answers. Call `open`, then `ask`, then `close`."""

    def __init__(self, writer: asyncio.StreamWriter, client_id: str) -> None:
        self._writer: Final = writer  # which closes the transport when it is forgotten
        self._transport: Final = writer.transport
        encoded = client_id.encode()
        self._client: Final = struct.pack(">h", len(encoded)) + encoded
        self._length: Final = bytearray(_LENGTH.size)
        self._buffers = [bytearray(), bytearray()]
        self._buffer = self._buffers[0]  # for the answer that comes in, or came last
        self._size = -1  # the length of the answer that comes in; below 0: it is not known yet
        self._have = 0  # how many bytes of the answer, or of its length, have come
        self._id = 0
        self._waiting: asyncio.Future[memoryview] | None = None
        self._on_received: ReceiveCallback | None = None
        self.versions: dict[int, tuple[int, int]] = {}
        """The first and the last version of each request that the broker knows."""
        self._lost: Exception | None = None

    @classmethod
    async def open(cls, options: KafkaOptions, host: str, port: int) -> Self:
        """Connect to a broker. Raises KafkaError, OSError, TimeoutError."""
        made = await create_conn(host, port, **connection(options))
        made._read_task.cancel()
        frames = cls(made._writer, options.client_id)
        frames.versions = dict(made._versions)
        made._reader = None
        frames.take_over()
        return frames

    def take_over(self) -> None:
        """Read all further answers here. No earlier request may be unanswered."""
        transport = cast("asyncio.Transport", self._transport)
        # The protocol is set while reading is paused: a transport asks at the start of reading which kind of protocol it has.
        transport.pause_reading()
        transport.set_protocol(self)
        transport.resume_reading()

    def close(self) -> None:
        self._fail(KafkaConnectionError("closed"))

    @property
    def is_open(self) -> bool:
        return self._lost is None

    async def ask(self, api: tuple[int, int], body: Sequence[bytes], on_received: ReceiveCallback | None = None) -> memoryview:
        """Send a request, and return its answer without the id. The answer, and every slice of it, stay unchanged. `api` is the
        request's key and version; `body` is in pieces. `on_received` is called whenever a part of the answer has arrived.
        Raises KafkaConnectionError."""
        if self._lost is not None:
            raise self._lost
        assert self._waiting is None, "one request at a time"
        self._id = self._id + 1 & 0x7FFFFFFF
        head = _HEAD.pack(api[0], api[1], self._id) + self._client
        size = len(head) + sum([len(piece) for piece in body])
        self._transport.writelines([_LENGTH.pack(size) + head, *body])
        self._waiting = asyncio.get_running_loop().create_future()
        self._on_received = on_received
        try:
            answer = await self._waiting
        except BaseException:
            self.close()  # the answer may still come, and would be taken for that to another request
            raise
        finally:
            self._waiting = self._on_received = None
        if _LENGTH.unpack_from(answer)[0] != self._id:
            self.close()
            raise KafkaConnectionError("the answer of the broker belongs to another request")
        return answer[_LENGTH.size :]

    # asyncio's side.

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(KafkaConnectionError(str(exc) if exc else "the broker has closed the connection"))

    def get_buffer(self, _sizehint: int) -> memoryview:
        if self._size < 0:
            return memoryview(self._length)[self._have :]
        return memoryview(self._buffer)[self._have : self._size]

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._size < 0:
            if self._have < _LENGTH.size:
                return
            self._size = _LENGTH.unpack(self._length)[0]
            self._have = 0
            if self._waiting is None or not _LENGTH.size <= self._size <= _ANSWER_BYTES_MAX:
                self._fail(KafkaConnectionError(f"a frame of {self._size} bytes is not an answer from Kafka"))
                return
            self._make_room()
            return
        answer = memoryview(self._buffer)[: self._size].toreadonly()
        if self._on_received is not None and self._have > _LENGTH.size:
            self._on_received(answer[_LENGTH.size :], self._have - _LENGTH.size)
        if self._have == self._size:
            self._size, self._have = -1, 0
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(answer)

    def _make_room(self) -> None:
        """Choose a buffer for the answer: a former one if it is large enough, and no part of its answer is used any more; else
        a new one. A new one has room to spare, since filling it with zeros costs half as much as reading into it. There are
        two buffers, so that a small answer does not replace the buffer of a large one."""
        for buffer in self._buffers:
            if len(buffer) >= self._size and _is_free(buffer):
                self._buffer = buffer
                return
        # It replaces the largest unused buffer, which was too small; or, if none is unused, the smaller buffer.
        free = [buffer for buffer in self._buffers if _is_free(buffer)]
        gone = max(free, key=len) if free else min(self._buffers, key=len)
        self._buffer = bytearray(self._size + self._size // 8)
        self._buffers = [self._buffer, *(buffer for buffer in self._buffers if buffer is not gone)]

    def _fail(self, error: Exception) -> None:
        if self._lost is None:
            self._lost = error
            self._transport.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(self._lost)


def _is_free(buffer: bytearray) -> bool:
    """Return whether there are no views of a buffer."""
    try:
        buffer.append(0)  # fails while there are views
    except BufferError:
        return False
    buffer.pop()
    return True
