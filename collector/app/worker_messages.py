"""The messages between a worker and its supervisor. Each is a pickled object, sent over a socket after its length.

Both are processes of one command, so neither unpickles data of other programs.
"""

import asyncio
import contextlib
import pickle
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from adapters.errors import OVERLOADED, RequestRefused
from collector.config.settings import Settings
from collector.query.live_records import Answering, LiveAnswer, TooManyWatches, Watching
from collector.telemetry.aggregate import Snapshot

Command = Literal["gateway", "writer"]

# Asks a worker to stop without a lame duck. Ctrl-C itself goes to every process of the terminal, so workers ignore SIGINT.
AT_ONCE: Final = signal.SIGUSR1

# Kinds of MetricsMessage: metrics of one worker; of all workers; of all workers, in the form that everyone may see.
SNAPSHOT: Final = "snapshot"
COMBINED: Final = "combined"
SHOWN: Final = "shown"

_LENGTH: Final = struct.Struct("!I")

GATHER_TIMEOUT_S: Final = 5.0
Answer = TypeVar("Answer")


class Job(NamedTuple):
    """The task of a worker."""

    command: Command
    settings: Settings
    worker: int
    restarted: bool  # whether it replaces another worker
    began_s: float  # when the command began, by the machine's monotonic clock
    unix_descriptors: dict[str, int]  # the descriptors of the Unix sockets that it inherits, by path


class MetricsMessage(NamedTuple):
    """A question for metrics, or an answer. An answer has the number of its question."""

    kind: str
    number: int
    snapshot: Snapshot


class LiveQuestion(NamedTuple):
    """A question for live records. A worker asks for those of all workers, the supervisor for the worker's own."""

    number: int
    watching: Watching


class LiveReply(NamedTuple):
    """The reply to a LiveQuestion. `answer` is None if there are too many watches."""

    number: int
    answer: LiveAnswer | None


class WorkerStarted(NamedTuple):
    """Reports that a worker listens. `waits_for` is why it can't do its work yet; None if it can."""

    waits_for: str | None


class WorkerCannotRun(NamedTuple):
    """Reports why a worker cannot run, in words for the user."""

    reason: str


def no_answer(what: str) -> RequestRefused:
    """Return the error for a supervisor that does not answer. Its status allows the client to ask for the page again."""
    return RequestRefused(OVERLOADED, f"no {what} of all workers within {GATHER_TIMEOUT_S:g} s")


class Replies(Generic[Answer]):
    """Waits for the replies to questions, by their numbers."""

    def __init__(self) -> None:
        self._waiting: Final[dict[int, asyncio.Future[Answer]]] = {}
        self._asked = 0

    async def ask(self, send: Callable[[int], None]) -> Answer:
        """Send a question, and return its answer. `send` sends the question with a number."""
        self._asked += 1
        number = self._asked
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            send(number)
            return await waiting
        finally:
            del self._waiting[number]

    def take(self, number: int, answer: Answer) -> None:
        """Pass an answer to its question. Drop an answer for which no question waits."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


def live_answer(answer: LiveAnswer | None) -> LiveAnswer:
    """Return the answer in a LiveReply. Raises TooManyWatches if there is none."""
    if answer is None:
        raise TooManyWatches
    return answer


async def reply_live(frames: "WorkerFrames", question: LiveQuestion, answering: Answering) -> None:
    """Answer a question for live records, with None if there are too many watches."""
    try:
        answer: LiveAnswer | None = await answering(question.watching)
    except TooManyWatches:
        answer = None
    frames.send(LiveReply(question.number, answer))


class WorkerFrames:
    """Sends and receives messages over a stream. Iterate over it to receive them until the other side closes the stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader: Final = reader
        self._writer: Final = writer

    def send(self, message: object) -> None:
        """Send a message without waiting. Ignore an error of the connection."""
        # The buffer is bounded although sending does not wait, since no process is asked again before it has answered.
        with contextlib.suppress(OSError):
            self._writer.write(_frame(message))

    def close(self) -> None:
        self._writer.close()

    async def close_sent(self) -> None:
        """Close once everything is sent."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def __aiter__(self) -> "WorkerFrames":
        return self

    async def __anext__(self) -> Any:  # any object that the other side sends
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301  # from our own process
        except (asyncio.IncompleteReadError, OSError):
            raise StopAsyncIteration from None


def _frame(message: object) -> bytes:
    body = pickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


def receive_job(connection: socket.socket) -> Job:
    """Return the first message on the socket, before the worker has an event loop. Raises EOFError if the supervisor has
    ended."""
    with connection.makefile("rb", buffering=0) as stream:
        (length,) = _LENGTH.unpack(_exactly(stream.read, _LENGTH.size))
        job: Job = pickle.loads(_exactly(stream.read, length))  # noqa: S301  # from our own process
        return job


def _exactly(read: Callable[[int], bytes | None], size: int) -> bytes:
    out = b""
    while len(out) < size:
        piece = read(size - len(out))
        if not piece:
            raise EOFError("the supervisor has ended")
        out += piece
    return out
