"""The supervisor's side of its connection to a worker process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

from collector.app.worker_messages import (
    SNAPSHOT,
    Job,
    LiveQuestion,
    LiveReply,
    MetricsMessage,
    Replies,
    WorkerCannotRun,
    WorkerFrames,
    WorkerStarted,
    live_answer,
    reply_live,
)
from collector.query.live_records import Answering, LiveAnswer, Watching
from collector.telemetry.aggregate import Snapshot

# How long to wait for a worker's last messages after its end. They were sent before it ended.
_LAST_WORDS_S: Final = 1.0


class WorkerProcess:
    """A worker process, as its supervisor sees it."""

    def __init__(
        self,
        index: int,
        process: asyncio.subprocess.Process,
        frames: "WorkerFrames",
        answer: Callable[[str], Awaitable[Snapshot]],
        live_records: Answering,
    ) -> None:
        self.index: Final = index
        self.process: Final = process
        self.began_s: Final = time.monotonic()
        self.started: Final = asyncio.Event()
        self.waits_for: str | None = None
        """Why the worker cannot do its work yet, for example because Kafka is not reached; None if it can."""
        self.snapshot: Snapshot = []
        self.cannot_run: str | None = None
        self._frames: Final = frames
        self._answer: Final = answer
        self._live_records: Final = live_records
        self._live_answers: Final = Replies[LiveAnswer | None]()
        self._answered: Final = asyncio.Event()  # not set: a question for metrics is not answered yet
        self._answered.set()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._listening: Final = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, job: Job, answer: Callable[[str], Awaitable[Snapshot]], live_records: Answering) -> "WorkerProcess":
        """Start a worker. `answer` returns the metrics that the worker asks for, by their kind; `live_records` returns the live
        records of all workers."""
        ours, theirs = socket.socketpair()
        with theirs, _held_back(signal.SIGINT):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "collector.app.worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno(), *job.unix_descriptors.values()],
                env=_environment(),
            )
        frames = WorkerFrames(*await asyncio.open_unix_connection(sock=ours))
        frames.send(job)
        return cls(job.worker, process, frames, answer, live_records)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end. Return the exit status, negative if a signal ended the process."""
        status = await self.process.wait()
        await asyncio.wait({self._listening}, timeout=_LAST_WORDS_S)
        self._listening.cancel()
        self._answered.set()
        self._frames.close()
        return status

    def ask(self) -> "asyncio.Task[bool]":
        """Return a task that is done when `snapshot` is up to date. A worker that has not answered yet is not asked again."""
        if self._answered.is_set():
            self._answered.clear()
            self._frames.send(MetricsMessage(SNAPSHOT, 0, []))
        return asyncio.create_task(self._answered.wait())

    async def ask_live(self, watching: Watching) -> LiveAnswer:
        """Return the worker's live records. Raises TooManyWatches."""
        return live_answer(await self._live_answers.ask(lambda number: self._frames.send(LiveQuestion(number, watching))))

    async def _listen(self) -> None:
        async for message in self._frames:
            if isinstance(message, WorkerStarted):
                self.waits_for = message.waits_for
                self.started.set()
            elif isinstance(message, WorkerCannotRun):
                self.cannot_run = message.reason
            elif isinstance(message, LiveReply):
                self._live_answers.take(message.number, message.answer)
            elif isinstance(message, LiveQuestion):
                self._run(reply_live(self._frames, message, self._live_records))
            elif message.kind == SNAPSHOT:
                self.snapshot = message.snapshot
                self._answered.set()
            else:
                self._run(self._reply(message.kind, message.number))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, kind: str, number: int) -> None:
        self._frames.send(MetricsMessage(kind, number, await self._answer(kind)))


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Block the signal in this thread inside this context. Processes that are started in it keep the signal blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        # The earlier mask is not restored, since several workers start at once: it could be a mask that another start has set.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _environment() -> dict[str, str]:
    """Return an environment in which a worker finds the same code that this process runs, and no module of the working
    directory."""
    paths = os.pathsep.join(path or str(os.getcwd()) for path in sys.path)  # noqa: PTH109  # a path's text
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
