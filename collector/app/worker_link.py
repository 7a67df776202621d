"""The worker's side of its connection to the supervisor."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from collector.app.worker_messages import (
    COMBINED,
    GATHER_TIMEOUT_S,
    SHOWN,
    SNAPSHOT,
    LiveQuestion,
    LiveReply,
    MetricsMessage,
    Replies,
    WorkerCannotRun,
    WorkerFrames,
    WorkerStarted,
    live_answer,
    no_answer,
    reply_live,
)
from collector.query.live_records import Answering, LiveAnswer, Watching
from collector.telemetry.aggregate import Snapshot


class Link:
    """A worker's connection to its supervisor. Run `run` in a task, then call `started`, `gather` and the others."""

    def __init__(self, frames: "WorkerFrames", snapshot: Callable[[], Snapshot], live_records: Answering) -> None:
        """Use `open` to create a connection."""
        self._frames: Final = frames
        self._snapshot: Final = snapshot
        self._own_live_records: Final = live_records
        self._live_answers: Final = Replies[LiveAnswer | None]()
        self._answers: Final = Replies[Snapshot]()
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    @classmethod
    async def open(cls, connection: socket.socket, snapshot: Callable[[], Snapshot], live_records: Answering) -> "Link":
        """Open the connection. `snapshot` returns this worker's own metrics, `live_records` its own live records."""
        return cls(WorkerFrames(*await asyncio.open_unix_connection(sock=connection)), snapshot, live_records)

    async def run(self) -> None:
        """Answer the supervisor's questions until its end of the connection is closed."""
        async for message in self._frames:
            if isinstance(message, LiveReply):
                self._live_answers.take(message.number, message.answer)
            elif isinstance(message, LiveQuestion):
                task = asyncio.create_task(reply_live(self._frames, message, self._own_live_records))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif message.kind == SNAPSHOT:
                self._frames.send(message._replace(snapshot=self._snapshot()))
            else:
                self._answers.take(message.number, message.snapshot)

    def started(self, waits_for: str | None = None) -> None:
        """Report that this worker listens. `waits_for` is why it cannot do its work yet. Once it can, call this again without a
        reason."""
        self._frames.send(WorkerStarted(waits_for))

    async def cannot_run(self, reason: str) -> None:
        """Report why this worker ends, and close the connection."""
        self._frames.send(WorkerCannotRun(reason))
        await self._frames.close_sent()

    async def gather(self) -> Snapshot:
        """Return the metrics of all workers, with those of every tenant. Raises RequestRefused if the supervisor does not
        answer."""
        return await self._ask(COMBINED)

    async def gather_shown(self) -> Snapshot:
        """Return the metrics of all workers in the form that everyone may see. Raises RequestRefused if the supervisor does not
        answer."""
        return await self._ask(SHOWN)

    async def live_records(self, watching: Watching) -> LiveAnswer:
        """Return the live records of all workers. Raises TooManyWatches, RequestRefused."""
        try:
            async with asyncio.timeout(GATHER_TIMEOUT_S):
                answer = await self._live_answers.ask(lambda number: self._frames.send(LiveQuestion(number, watching)))
        except TimeoutError:
            raise no_answer("live records") from None
        return live_answer(answer)

    async def _ask(self, kind: str) -> Snapshot:
        try:
            async with asyncio.timeout(GATHER_TIMEOUT_S):
                return await self._answers.ask(lambda number: self._frames.send(MetricsMessage(kind, number, [])))
        except TimeoutError:
            raise no_answer("metrics") from None
