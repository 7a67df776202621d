"""The processes of a gateway, or the one of a writer, and the process above them, which starts, watches and ends them.

Invariants (tests in tests/system/test_gateway_writer.py and tests/system/test_supervised_writer.py):
1. A worker that ends unasked is logged and replaced, after a delay that doubles. test_a_writer_that_dies_is_replaced
2. What keeps a first worker from running (CannotRun, or an end before it is ready) ends the command with that error.
   test_a_writer_that_cannot_run_ends_the_command
3. Signals are passed on. test_a_signal_under_load_is_passed_on, test_a_writer_stops_with_status_0
4. Workers do not outlive the process above. test_workers_do_not_outlive_the_process_above,
   test_a_writer_does_not_outlive_the_process_above

The process above handles no telemetry. Each worker has a socket to it: it reports there that it has started, or why it cannot
run; for metrics it asks there for those of all, which the process above gathers (collector/telemetry/aggregate.py). A worker is
`python -m collector.app.worker FD`; its job (its settings, secrets included) comes over the socket, so neither arguments nor
environment hold it.
"""

import asyncio
import contextlib
import math
import os
import pickle
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import structlog

from collector.app.ports import (
    SharedPorts,
    UnixSockets,
    announcement,
    listens,
    ports,
    reached_announcement,
    warn_of_anonymous,
    writer_announcement,
    writer_ports,
)
from collector.config.settings import Settings
from collector.query.live_records import Answering, LiveAnswer, TooManyWatches, Watching, combined
from collector.runtime.errors import CannotRun
from collector.telemetry import logs
from collector.telemetry.aggregate import Snapshot, combine, counted
from collector.telemetry.tenant_ranking import Ranking

Command = Literal["gateway", "writer"]

# A worker that does not tell its metrics in time is shown as it was last.
_SNAPSHOT_TIMEOUT_S: Final = 1.0
_GATHER_TIMEOUT_S: Final = 5.0
# What a worker that dies has counted since it was last asked is lost: so it is asked, whether anyone looks or not.
_SNAPSHOT_INTERVAL_S: Final = 1.0
_RESTART_MIN_S: Final = 0.1
_RESTART_MAX_S: Final = 30.0
# A worker that ran so long had started well: what ended it is something new.
_STABLE_S: Final = 60.0
# Workers keep the time to stop by themselves; one that can't is killed so much later.
_KILL_AFTER_S: Final = 2.0
# Asks a worker to stop without a lame duck. Ctrl-C itself goes to every process of the terminal, so workers ignore SIGINT.
AT_ONCE: Final = signal.SIGUSR1
# What a worker sent before it ended is there already.
_LAST_WORDS_S: Final = 1.0
# From one look at whether all workers have what they wait for to the next.
_LOOK_S: Final = 0.2
_WHO: Final = {"gateway": "a worker", "writer": "the writer"}

_SNAPSHOT: Final = "snapshot"
_COMBINED: Final = "combined"
_SHOWN: Final = "shown"
_LENGTH: Final = struct.Struct("!I")

log = structlog.get_logger(__name__)


class Job(NamedTuple):
    """What a worker is to do."""

    command: Command
    settings: Settings
    worker: int
    restarted: bool  # another one had its place before
    began_s: float  # when the command did, by the machine's monotonic clock
    unix_descriptors: dict[str, int]  # of the Unix sockets that it inherits, by path


class _Metrics(NamedTuple):
    """A question for metrics, or an answer; the number tells which belongs to which."""

    kind: str
    number: int
    snapshot: Snapshot


class _LiveQuestion(NamedTuple):
    """For live records: of a worker, for those of all; of the process above, for the worker's own."""

    number: int
    watching: Watching


class _LiveReply(NamedTuple):
    """`answer`: None where too many are watching."""

    number: int
    answer: LiveAnswer | None


class _Started(NamedTuple):
    """A worker listens. `waits_for`: why it can't do its work yet; None: it can."""

    waits_for: str | None


class _CannotRun(NamedTuple):
    """Why a worker cannot run, in the words for its user."""

    reason: str


class GatherFailed(Exception):
    """The process above does not answer."""


def run_gateway(settings: Settings, say: Callable[[str], None]) -> int:
    """Run the gateway as settings.gateway.workers processes, until SIGTERM or SIGINT; return the status. Raises CannotRun."""

    def announce(held: Settings, waits_for: str | None) -> None:
        http_port, otlp_port, grpc_port = ports(held).values()
        say(announcement(held, http_port, otlp_port, grpc_port, stores=False, waits_for=waits_for))

    def reached() -> None:
        say(reached_announcement("collector"))

    with contextlib.closing(UnixSockets(settings)) as unix_sockets:
        return _run(
            "gateway", settings, ports(settings), settings.gateway.workers, announce, reached, unix_sockets.descriptors()
        )


def run_writer(settings: Settings, say: Callable[[str], None]) -> int:
    """Run the writer, as one process under this one, until SIGTERM or SIGINT; return the status. Raises CannotRun."""

    def announce(held: Settings, waits_for: str | None) -> None:
        say(writer_announcement(held, held.writer.port, waits_for))

    return _run("writer", settings, writer_ports(settings), 1, announce, lambda: say(reached_announcement("writer")))


def _run(
    command: Command,
    settings: Settings,
    wanted: dict[str, int],
    count: int,
    started: Callable[[Settings, str | None], None],
    reached: Callable[[], None],
    unix_descriptors: dict[str, int] | None = None,
) -> int:
    began_s = time.monotonic()
    logs.set_up(settings.logging)
    if command == "gateway":
        warn_of_anonymous(settings, anonymous_by_default=False)
    with contextlib.closing(SharedPorts(settings, wanted, listens(settings) if command == "gateway" else {})) as shared:
        held = shared.settings(settings)

        async def main() -> int:
            supervisor = Supervisor(command, held, count, began_s, unix_descriptors or {})
            return await supervisor.run(partial(started, held), reached)

        return asyncio.run(main())


class Supervisor:
    """The process above."""

    def __init__(
        self, command: Command, settings: Settings, count: int, began_s: float, unix_descriptors: dict[str, int]
    ) -> None:
        """`count`: of workers."""
        self._command: Final[Command] = command
        self._settings: Final = settings
        self._count: Final = count
        self._began_s: Final = began_s
        self._unix_descriptors: Final = unix_descriptors
        self._stopping: Final = asyncio.Event()
        self._passed_on = AT_ONCE  # unless SIGTERM is what stops all
        self._workers: Final[dict[int, _Worker]] = {}
        self._counted_by_the_dead: Snapshot = []
        self._gathering: Final = asyncio.Lock()
        self._gathered: Snapshot = []
        self._gathered_s = -math.inf  # when that was, by the machine's monotonic clock
        # Here, since every scrape may be another worker's: each would choose others to show.
        self._ranking: Final = Ranking(settings.tenants.shown_max)
        self._failed: int | None = None
        self._cannot_run: str | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    async def run(self, started: Callable[[str | None], None], reached: Callable[[], None]) -> int:
        """Run the workers until a signal, and return the exit status. `started` is called once all workers have started,
        with what one of them waits for, if any; `reached` is called when none waits any more. Raises CannotRun."""
        count = self._count
        watching: list[asyncio.Task[None]] = []
        # The first alone: what keeps it from starting would keep all of them, and is reported once.
        keeping = [asyncio.create_task(self._keep(0))]
        if await self._started(keeping, 0):
            keeping += [asyncio.create_task(self._keep(index)) for index in range(1, count)]
            starts = await asyncio.gather(*(self._started(keeping, index) for index in range(1, count)))
            if all(starts) and not self._stopping.is_set():
                waits_for = self._waits_for()
                started(waits_for)
                if waits_for is not None:
                    watching.append(asyncio.create_task(self._report_reached(reached)))
        watching.append(asyncio.create_task(self._ask_now_and_then()))
        await self._stopping.wait()
        for task in watching:
            task.cancel()
        for worker in self._workers.values():
            worker.signal(self._passed_on)
        shutdown = self._settings.shutdown
        _, late = await asyncio.wait(keeping, timeout=shutdown.lame_duck_s + shutdown.timeout_s + _KILL_AFTER_S)
        for worker in self._workers.values():
            log.error(f"{self._who} did not stop in time, and is killed", worker=worker.index, pid=worker.process.pid)
            worker.signal(signal.SIGKILL)
        if late:
            await asyncio.wait(late)
        statuses = [task.result() for task in keeping]
        if self._cannot_run is not None:
            raise CannotRun(self._cannot_run)
        return self._failed or max(statuses, key=bool)

    @property
    def _who(self) -> str:
        return _WHO[self._command]

    def _signalled(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            log.warning("ended by a second signal", signal=number.name)
            for worker in self._workers.values():
                worker.signal(signal.SIGKILL)
            os._exit(128 + number)
        log.info("stopping", signal=number.name, timeout_s=self._settings.shutdown.timeout_s)
        if number == signal.SIGTERM:
            self._passed_on = number
        self._stopping.set()

    def _waits_for(self) -> str | None:
        """Return why a worker can't do its work yet; None: all can."""
        return next((worker.waits_for for worker in self._workers.values() if worker.waits_for is not None), None)

    async def _report_reached(self, reached: Callable[[], None]) -> None:
        while self._waits_for() is not None or len(self._workers) < self._count:  # noqa: ASYNC110  # workers come and go
            await asyncio.sleep(_LOOK_S)
        reached()

    async def _started(self, keeping: list[asyncio.Task[int]], index: int) -> bool:
        """Return whether that worker has started; if it could not, all stop."""
        while not self._stopping.is_set():
            worker = self._workers.get(index)
            if worker is not None and worker.started.is_set():
                return True
            if keeping[index].done():
                self._failed = keeping[index].result() or 1
                self._stopping.set()
                break
            await asyncio.sleep(0.01)
        return False

    async def _keep(self, index: int) -> int:
        """Keep one worker running until all stop. Return the exit status of its last process."""
        failures = 0
        restarted = False
        while True:
            worker = await _Worker.start(
                Job(self._command, self._settings, index, restarted, self._began_s, self._unix_descriptors),
                self._answer,
                self._live_records,
            )
            self._workers[index] = worker
            if self._stopping.is_set():  # while it was being started
                worker.signal(self._passed_on)
            status = await worker.ended()
            # In one step, or a scrape in between would miss what it has counted, or count it twice.
            del self._workers[index]
            self._counted_by_the_dead = combine([self._counted_by_the_dead, counted(worker.snapshot)])
            if worker.cannot_run is not None and not restarted:
                # Waiting changes nothing, and it was never otherwise: the user has to know, in the command's own words.
                self._cannot_run = worker.cannot_run
                self._stopping.set()
            if self._stopping.is_set():
                return _exit_status(status)
            if not (worker.started.is_set() or restarted):
                log.critical(f"{self._who} ended before it was ready", worker=index, ended=_ending(status))
                return _exit_status(status)
            lived_s = time.monotonic() - worker.began_s
            failures = 0 if lived_s > _STABLE_S else failures + 1
            delay_s = min(_RESTART_MAX_S, _RESTART_MIN_S * 2.0 ** min(failures - 1, 32)) if failures else 0.0
            log.error(
                f"{self._who} ended by itself, and is replaced",
                worker=index,
                pid=worker.process.pid,
                ended=_ending(status),
                **({"reason": worker.cannot_run} if worker.cannot_run is not None else {}),
                lived_s=round(lived_s, 1),
                after_s=delay_s,
            )
            restarted = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return 0

    async def _gather(self, interval_s: float = 0.0) -> Snapshot:
        """Return the metrics of all, the dead's counts included, at most so many seconds old. Who does not answer in time is
        shown as it was last."""
        async with self._gathering:
            if time.monotonic() < self._gathered_s + interval_s:
                return self._gathered
            answers = [worker.ask() for worker in self._workers.values()]
            if answers:
                _, late = await asyncio.wait(answers, timeout=_SNAPSHOT_TIMEOUT_S)
                for answer in late:
                    answer.cancel()
            self._gathered = combine([self._counted_by_the_dead, *(worker.snapshot for worker in self._workers.values())])
            self._gathered_s = time.monotonic()
            return self._gathered

    async def _answer(self, kind: str) -> Snapshot:
        """Return what a worker requested: the metrics of all processes, either raw or as they are shown."""
        snapshot = await self._gather(self._settings.http.metrics_interval_s)
        return self._ranking.shown(snapshot) if kind == _SHOWN else snapshot

    async def _live_records(self, watching: Watching) -> LiveAnswer:
        """Return what all workers have of a watch. A worker that does not answer in time is left out. Raises TooManyWatches."""
        questions = [asyncio.create_task(worker.ask_live(watching)) for worker in self._workers.values()]
        done, late = await asyncio.wait(questions, timeout=_SNAPSHOT_TIMEOUT_S)
        for question in late:
            question.cancel()
        return combined([question.result() for question in done])

    async def _ask_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_SNAPSHOT_INTERVAL_S)
            await self._gather()


class _Worker:
    """One of them, as the process above sees it."""

    def __init__(
        self,
        index: int,
        process: asyncio.subprocess.Process,
        frames: "_Frames",
        answer: Callable[[str], Awaitable[Snapshot]],
        live_records: Answering,
    ) -> None:
        self.index: Final = index
        self.process: Final = process
        self.began_s: Final = time.monotonic()
        self.started: Final = asyncio.Event()
        self.waits_for: str | None = None
        """Why it can't do its work yet: Kafka is away."""
        self.snapshot: Snapshot = []
        self.cannot_run: str | None = None
        self._frames: Final = frames
        self._answer: Final = answer
        self._live_records: Final = live_records
        self._live_answers: Final = _Replies()
        self._answered: Final = asyncio.Event()  # not set: a question for metrics is not answered yet
        self._answered.set()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._listening: Final = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, job: Job, answer: Callable[[str], Awaitable[Snapshot]], live_records: Answering) -> "_Worker":
        """`answer` gives the metrics that the worker asks for, by their kind; `live_records` those of all."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "collector.app.worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno(), *job.unix_descriptors.values()],
                env=_environment(),
            )
        frames = _Frames(*await asyncio.open_unix_connection(sock=ours))
        frames.send(job)
        return cls(job.worker, process, frames, answer, live_records)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, negative where a signal ended it."""
        status = await self.process.wait()
        await asyncio.wait({self._listening}, timeout=_LAST_WORDS_S)
        self._listening.cancel()
        self._answered.set()
        self._frames.close()
        return status

    def ask(self) -> "asyncio.Task[bool]":
        """Done when `snapshot` is up to date. Who has not answered yet is not asked again."""
        if self._answered.is_set():
            self._answered.clear()
            self._frames.send(_Metrics(_SNAPSHOT, 0, []))
        return asyncio.create_task(self._answered.wait())

    async def ask_live(self, watching: Watching) -> LiveAnswer:
        """Return its live records. Raises TooManyWatches."""
        return await self._live_answers.ask(lambda number: self._frames.send(_LiveQuestion(number, watching)))

    async def _listen(self) -> None:
        async for message in self._frames:
            if isinstance(message, _Started):
                self.waits_for = message.waits_for
                self.started.set()
            elif isinstance(message, _CannotRun):
                self.cannot_run = message.reason
            elif isinstance(message, _LiveReply):
                self._live_answers.take(message)
            elif isinstance(message, _LiveQuestion):
                self._run(_reply_live(self._frames, message, self._live_records))
            elif message.kind == _SNAPSHOT:
                self.snapshot = message.snapshot
                self._answered.set()
            else:
                self._run(self._reply(message.kind, message.number))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, kind: str, number: int) -> None:
        self._frames.send(_Metrics(kind, number, await self._answer(kind)))


class Link:
    """A worker's connection to the process above. Use: `run` in a task, `started`, `gather`."""

    def __init__(self, frames: "_Frames", snapshot: Callable[[], Snapshot], live_records: Answering) -> None:
        """Use `open`."""
        self._frames: Final = frames
        self._snapshot: Final = snapshot
        self._own_live_records: Final = live_records
        self._live_answers: Final = _Replies()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._answers: Final[dict[int, asyncio.Future[Snapshot]]] = {}
        self._asked = 0

    @classmethod
    async def open(cls, connection: socket.socket, snapshot: Callable[[], Snapshot], live_records: Answering) -> "Link":
        """`snapshot` reads this worker's own metrics, `live_records` its own live records."""
        return cls(_Frames(*await asyncio.open_unix_connection(sock=connection)), snapshot, live_records)

    async def run(self) -> None:
        """Run until the supervisor is gone."""
        async for message in self._frames:
            if isinstance(message, _LiveReply):
                self._live_answers.take(message)
            elif isinstance(message, _LiveQuestion):
                task = asyncio.create_task(_reply_live(self._frames, message, self._own_live_records))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif message.kind == _SNAPSHOT:
                self._frames.send(message._replace(snapshot=self._snapshot()))
            elif (answer := self._answers.get(message.number)) is not None and not answer.done():
                answer.set_result(message.snapshot)

    def started(self, waits_for: str | None = None) -> None:
        """Report that this worker listens. `waits_for`: why it can't do its work yet; reported again without, when it can."""
        self._frames.send(_Started(waits_for))

    async def cannot_run(self, reason: str) -> None:
        """Report why this worker ends, and close the connection."""
        self._frames.send(_CannotRun(reason))
        await self._frames.close_sent()

    async def gather(self) -> Snapshot:
        """The metrics of all workers, every tenant's too. Raises GatherFailed."""
        return await self._ask(_COMBINED)

    async def gather_shown(self) -> Snapshot:
        """The metrics of all workers, as they are for everyone to see. Raises GatherFailed."""
        return await self._ask(_SHOWN)

    async def live_records(self, watching: Watching) -> LiveAnswer:
        """Return the live records of all workers. Raises TooManyWatches, GatherFailed."""
        try:
            async with asyncio.timeout(_GATHER_TIMEOUT_S):
                return await self._live_answers.ask(lambda number: self._frames.send(_LiveQuestion(number, watching)))
        except TimeoutError:
            raise GatherFailed(f"no live records of all workers within {_GATHER_TIMEOUT_S:g} s") from None

    async def _ask(self, kind: str) -> Snapshot:
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._frames.send(_Metrics(kind, number, []))
        try:
            async with asyncio.timeout(_GATHER_TIMEOUT_S):
                snapshot: Snapshot = await answer
                return snapshot
        except TimeoutError:
            raise GatherFailed(f"no metrics of all workers within {_GATHER_TIMEOUT_S:g} s") from None
        finally:
            del self._answers[number]


class _Replies:
    """Waits for the replies to live questions, by their numbers."""

    def __init__(self) -> None:
        self._waiting: Final[dict[int, asyncio.Future[LiveAnswer | None]]] = {}
        self._asked = 0

    async def ask(self, send: Callable[[int], None]) -> LiveAnswer:
        """`send` sends the question with that number. Raises TooManyWatches."""
        self._asked += 1
        number = self._asked
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            send(number)
            answer: LiveAnswer | None = await waiting
        finally:
            del self._waiting[number]
        if answer is None:
            raise TooManyWatches
        return answer

    def take(self, reply: _LiveReply) -> None:
        """One that nobody waits for any more is dropped."""
        waiting = self._waiting.get(reply.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply.answer)


async def _reply_live(frames: "_Frames", question: _LiveQuestion, answering: Answering) -> None:
    try:
        answer: LiveAnswer | None = await answering(question.watching)
    except TooManyWatches:
        answer = None
    frames.send(_LiveReply(question.number, answer))


class _Frames:
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

    def __aiter__(self) -> "_Frames":
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


def _environment() -> dict[str, str]:
    """In which a worker finds the very code that this process runs, and nothing that lies about in the working directory."""
    paths = os.pathsep.join(path or str(os.getcwd()) for path in sys.path)  # noqa: PTH109  # a path's text
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


def _exit_status(status: int) -> int:
    """Return the exit status as shells do: 128 and the signal's number if a signal ended the process."""
    return status if status >= 0 else 128 - status


def _ending(status: int) -> str:
    return f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


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
