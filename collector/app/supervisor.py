"""The supervisor: the parent process of a gateway's workers, or of a writer, which starts, watches and ends them.

Invariants (tests in tests/system/test_gateway_processes.py and tests/system/test_supervised_writer.py):
1. A worker that ends by itself is logged and replaced, after a delay that doubles. test_a_writer_that_dies_is_replaced
2. If a first worker cannot run (CannotRun, or an end before it is ready), the command ends with that error.
   test_a_writer_that_cannot_run_ends_the_command
3. Signals are passed on. test_a_signal_under_load_is_passed_on, test_a_writer_stops_with_status_0
4. Workers end when the supervisor ends. test_workers_do_not_outlive_the_process_above,
   test_a_writer_does_not_outlive_the_process_above

The supervisor handles no telemetry. Each worker has a socket to it. Over this socket the worker reports that it has started, or
why it cannot run. It also asks for the metrics of all workers, which the supervisor gathers (collector/telemetry/aggregate.py).

A worker is `python -m collector.app.worker FD`. Its job (its settings, secrets included) is sent over the socket, so neither
arguments nor environment contain it.
"""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

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
from collector.app.worker_messages import AT_ONCE, SHOWN, Command, Job
from collector.app.worker_process import WorkerProcess
from collector.config.settings import Settings
from collector.query.live_records import LiveAnswer, Watching, combined
from collector.runtime.errors import CannotRun
from collector.telemetry import logs
from collector.telemetry.aggregate import Snapshot, combine, counted
from collector.telemetry.tenant_ranking import Ranking

# If a worker does not report its metrics in time, its last ones are shown.
_SNAPSHOT_TIMEOUT_S: Final = 1.0
# If a worker dies, its counts since its last answer are lost. So its metrics are requested even without scrapes.
_SNAPSHOT_INTERVAL_S: Final = 1.0
_RESTART_MIN_S: Final = 0.1
_RESTART_MAX_S: Final = 30.0
# If a worker ran for this time, its start was successful. So its end has a new cause, and the delay begins again.
_STABLE_S: Final = 60.0
# Workers observe the time limit of a stop by themselves. A worker that does not is killed so many seconds after the limit.
_KILL_AFTER_S: Final = 2.0
# The time between two checks of whether workers still wait for something.
_LOOK_S: Final = 0.2
_WHO: Final = {"gateway": "a worker", "writer": "the writer"}


log = structlog.get_logger(__name__)


def run_gateway(settings: Settings, print_line: Callable[[str], None]) -> int:
    """Run the gateway as settings.gateway.workers processes, until SIGTERM or SIGINT; return the status. Raises CannotRun."""

    def announce(held: Settings, waits_for: str | None) -> None:
        http_port, otlp_port, grpc_port = ports(held).values()
        print_line(announcement(held, http_port, otlp_port, grpc_port, stores=False, waits_for=waits_for))

    def reached() -> None:
        print_line(reached_announcement("collector"))

    with contextlib.closing(UnixSockets(settings)) as unix_sockets:
        return _run(
            "gateway", settings, ports(settings), settings.gateway.workers, announce, reached, unix_sockets.descriptors()
        )


def run_writer(settings: Settings, print_line: Callable[[str], None]) -> int:
    """Run the writer, as one process under this one, until SIGTERM or SIGINT; return the status. Raises CannotRun."""

    def announce(held: Settings, waits_for: str | None) -> None:
        print_line(writer_announcement(held, held.writer.port, waits_for))

    return _run("writer", settings, writer_ports(settings), 1, announce, lambda: print_line(reached_announcement("writer")))


def _run(
    command: Command,
    settings: Settings,
    requested: dict[str, int],
    count: int,
    started: Callable[[Settings, str | None], None],
    reached: Callable[[], None],
    unix_descriptors: dict[str, int] | None = None,
) -> int:
    began_s = time.monotonic()
    logs.set_up(settings.logging)
    if command == "gateway":
        warn_of_anonymous(settings, anonymous_by_default=False)
    with contextlib.closing(SharedPorts(settings, requested, listens(settings) if command == "gateway" else {})) as shared:
        held = shared.settings(settings)

        async def main() -> int:
            supervisor = Supervisor(command, held, count, began_s, unix_descriptors or {})
            return await supervisor.run(partial(started, held), reached)

        return asyncio.run(main())


class Supervisor:
    """Starts, watches and ends the workers."""

    def __init__(
        self, command: Command, settings: Settings, count: int, began_s: float, unix_descriptors: dict[str, int]
    ) -> None:
        """Run `count` workers."""
        self._command: Final[Command] = command
        self._settings: Final = settings
        self._count: Final = count
        self._began_s: Final = began_s
        self._unix_descriptors: Final = unix_descriptors
        self._stopping: Final = asyncio.Event()
        self._passed_on = AT_ONCE  # unless SIGTERM stops the supervisor
        self._workers: Final[dict[int, WorkerProcess]] = {}
        self._counted_by_the_dead: Snapshot = []
        self._gathering: Final = asyncio.Lock()
        self._gathered: Snapshot = []
        self._gathered_s = -math.inf  # the time of the last gathering, by the machine's monotonic clock
        # The ranking is in the supervisor, since different workers answer scrapes, and each would choose other tenants to show.
        self._ranking: Final = Ranking(settings.tenants.shown_max)
        self._failed: int | None = None
        self._cannot_run: str | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    async def run(self, started: Callable[[str | None], None], reached: Callable[[], None]) -> int:
        """Run the workers until a signal, and return the exit status. `started` is called once all workers have started,
        with the reason why one of them waits, if any; `reached` is called when none waits any more. Raises CannotRun."""
        count = self._count
        watching: list[asyncio.Task[None]] = []
        # The others start after the first one: a cause that prevents its start applies to all, and is reported once.
        keeping = [asyncio.create_task(self._keep(0))]
        if await self._started(keeping, 0):
            keeping += [asyncio.create_task(self._keep(index)) for index in range(1, count)]
            starts = await asyncio.gather(*(self._started(keeping, index) for index in range(1, count)))
            if all(starts) and not self._stopping.is_set():
                waits_for = self._waiting_reason()
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
            log.error(f"{self._process_name} did not stop in time, and is killed", worker=worker.index, pid=worker.process.pid)
            worker.signal(signal.SIGKILL)
        if late:
            await asyncio.wait(late)
        statuses = [task.result() for task in keeping]
        if self._cannot_run is not None:
            raise CannotRun(self._cannot_run)
        return self._failed or max(statuses, key=bool)

    @property
    def _process_name(self) -> str:
        return _WHO[self._command]

    def _signalled(self, number: signal.Signals) -> None:
        """Stop all workers; kill them at a second signal."""
        if self._stopping.is_set():
            log.warning("ended by a second signal", signal=number.name)
            for worker in self._workers.values():
                worker.signal(signal.SIGKILL)
            os._exit(128 + number)
        log.info("stopping", signal=number.name, timeout_s=self._settings.shutdown.timeout_s)
        if number == signal.SIGTERM:
            self._passed_on = number
        self._stopping.set()

    def _waiting_reason(self) -> str | None:
        """Return why a worker can't do its work yet; None if all can."""
        return next((worker.waits_for for worker in self._workers.values() if worker.waits_for is not None), None)

    async def _report_reached(self, reached: Callable[[], None]) -> None:
        """Call `reached` once all workers are running and none waits."""
        while self._waiting_reason() is not None or len(self._workers) < self._count:  # noqa: ASYNC110  # workers come and go
            await asyncio.sleep(_LOOK_S)
        reached()

    async def _started(self, keeping: list[asyncio.Task[int]], index: int) -> bool:
        """Wait until the worker has started, and return whether it has. If it cannot start, stop all workers."""
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
            worker = await WorkerProcess.start(
                Job(self._command, self._settings, index, restarted, self._began_s, self._unix_descriptors),
                self._answer,
                self._live_records,
            )
            self._workers[index] = worker
            if self._stopping.is_set():  # the stop came while the worker was starting
                worker.signal(self._passed_on)
            status = await worker.ended()
            # These two lines are one step without an await. Otherwise a scrape could miss its counts, or count them twice.
            del self._workers[index]
            self._counted_by_the_dead = combine([self._counted_by_the_dead, counted(worker.snapshot)])
            if worker.cannot_run is not None and not restarted:
                # No worker with this index has run yet, and waiting changes nothing. So the command reports the reason and
                # ends.
                self._cannot_run = worker.cannot_run
                self._stopping.set()
            if self._stopping.is_set():
                # The signal has ended a worker that does not handle signals yet. It has no work to finish.
                is_young = not worker.started.is_set() and status == -self._passed_on
                return 0 if is_young else _exit_status(status)
            if not (worker.started.is_set() or restarted):
                log.critical(f"{self._process_name} ended before it was ready", worker=index, ended=_ending(status))
                return _exit_status(status)
            lived_s = time.monotonic() - worker.began_s
            failures = 0 if lived_s > _STABLE_S else failures + 1
            delay_s = min(_RESTART_MAX_S, _RESTART_MIN_S * 2.0 ** min(failures - 1, 32)) if failures else 0.0
            log.error(
                f"{self._process_name} ended by itself, and is replaced",
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
        """Return the metrics of all workers, with the counts of dead ones, at most `interval_s` old. If a worker does not
        answer in time, its last metrics are used."""
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
        """Return the metrics of all processes that a worker asked for, either raw or as they are shown."""
        # The only worker of a writer caches its page itself, and asks again when dead letters are appended.
        interval_s = 0.0 if self._command == "writer" else self._settings.http.metrics_interval_s
        snapshot = await self._gather(interval_s)
        return self._ranking.shown(snapshot) if kind == SHOWN else snapshot

    async def _live_records(self, watching: Watching) -> LiveAnswer:
        """Return the records of all workers for a watch. A worker that does not answer in time is left out. Raises
        TooManyWatches."""
        questions = [asyncio.create_task(worker.ask_live(watching)) for worker in self._workers.values()]
        if not questions:  # all workers have ended
            return combined([])
        done, late = await asyncio.wait(questions, timeout=_SNAPSHOT_TIMEOUT_S)
        for question in late:
            question.cancel()
        return combined([question.result() for question in done])

    async def _ask_now_and_then(self) -> None:
        """Gather the metrics every _SNAPSHOT_INTERVAL_S."""
        while True:
            await asyncio.sleep(_SNAPSHOT_INTERVAL_S)
            await self._gather()


def _exit_status(status: int) -> int:
    """Return the exit status as shells do: 128 and the signal's number if a signal ended the process."""
    return status if status >= 0 else 128 - status


def _ending(status: int) -> str:
    return f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
