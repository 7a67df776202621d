"""What a worker and the process above it send to each other: objects of ours, each pickled, after its length, over a socket.

Both are processes of one command, so neither reads what others have written.
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

# Kinds of MetricsMessage: of the worker that is asked; of all; of all, as they are shown.
SNAPSHOT: Final = "snapshot"
COMBINED: Final = "combined"
SHOWN: Final = "shown"

_LENGTH: Final = struct.Struct("!I")

GATHER_TIMEOUT_S: Final = 5.0
Answer = TypeVar("Answer")


class Job(NamedTuple):
    """What a worker is to do."""

    command: Command
    settings: Settings
    worker: int
    restarted: bool  # another one had its place before
    began_s: float  # when the command did, by the machine's monotonic clock
    unix_descriptors: dict[str, int]  # of the Unix sockets that it inherits, by path


class MetricsMessage(NamedTuple):
    """A question for metrics, or an answer; the number tells which belongs to which."""

    kind: str
    number: int
    snapshot: Snapshot


class LiveQuestion(NamedTuple):
    """For live records: of a worker, for those of all; of the process above, for the worker's own."""

    number: int
    watching: Watching


class LiveReply(NamedTuple):
    """`answer`: None where too many are watching."""

    number: int
    answer: LiveAnswer | None


class WorkerStarted(NamedTuple):
    """A worker listens. `waits_for`: why it can't do its work yet; None: it can."""

    waits_for: str | None


class WorkerCannotRun(NamedTuple):
    """Why a worker cannot run, in the words for its user."""

    reason: str


def no_answer(what: str) -> RequestRefused:
    """The process above does not answer: a page that needs it can be asked for again."""
    return RequestRefused(OVERLOADED, f"no {what} of all workers within {GATHER_TIMEOUT_S:g} s")


class Replies(Generic[Answer]):
    """Waits for the replies to questions, by their numbers."""

    def __init__(self) -> None:
        self._waiting: Final[dict[int, asyncio.Future[Answer]]] = {}
        self._asked = 0

    async def ask(self, send: Callable[[int], None]) -> Answer:
        """`send` sends the question with that number."""
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
        """One that nobody waits for any more is dropped."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


def live_answer(answer: LiveAnswer | None) -> LiveAnswer:
    """What a LiveReply has. Raises TooManyWatches."""
    if answer is None:
        raise TooManyWatches
    return answer


async def reply_live(frames: "WorkerFrames", question: LiveQuestion, answering: Answering) -> None:
    """Answer a question for live records; None where there are too many who watch."""
    try:
        answer: LiveAnswer | None = await answering(question.watching)
    except TooManyWatches:
        answer = None
    frames.send(LiveReply(question.number, answer))


class WorkerFrames:
    """Objects over a stream between two processes of ours, each pickled, after its length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader: Final = reader
        self._writer: Final = writer

    def send(self, message: object) -> None:
        # Not waited for, and bounded all the same: nobody is asked again before it has answered.
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

    async def __anext__(self) -> Any:  # whatever the other side has sent
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301  # from our own process
        except (asyncio.IncompleteReadError, OSError):
            raise StopAsyncIteration from None


def _frame(message: object) -> bytes:
    body = pickle.dumps(message)
    return _LENGTH.pack(len(body)) + body


def receive_job(connection: socket.socket) -> Job:
    """The first frame, before a worker has an event loop. Raises EOFError."""
    with connection.makefile("rb", buffering=0) as stream:
        (length,) = _LENGTH.unpack(_exactly(stream.read, _LENGTH.size))
        job: Job = pickle.loads(_exactly(stream.read, length))  # noqa: S301  # from our own process
        return job


def _exactly(read: Callable[[int], bytes | None], size: int) -> bytes:
    out = b""
    while len(out) < size:
        piece = read(size - len(out))
        if not piece:
            raise EOFError("the process above is gone")
        out += piece
    return out
