"""Limits counted in Redis by all gateways together. While Redis is unavailable, this process counts its own share of them.

While a process waits for an answer, further questions are collected, and sent together after that answer. Nothing is sent
twice, because it would be counted twice. Redis is unavailable when it cannot be reached, does not answer in time, or does not
count (it loads, is a replica, is out of memory, …). It is available again when it has counted once.

Invariants:
1. Redis is asked once a request, and not at all for a plan without limits (tests/integration/redis/test_limiter.py,
   test_one_round_trip_each_and_none_in_vain).
2. An outage delays the requests that wait at its beginning by at most one time-out, and later requests not at all (the same,
   test_paused).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from collector.rate_limit.buckets import Buckets, SteadyClock, Three, limited, require_possible
from collector.rate_limit.local import LocalLimiter
from collector.rate_limit.script import SCRIPT, answer, give_back_arguments, key, take_arguments
from collector.runtime.reminders import Reminder
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

_PROBE_INTERVAL_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 1.0
_TOGETHER_MAX: Final = 256
# Redis counts in microseconds, so by its clock up to one more may have passed than by ours.
_REDIS_TICK_NANO: Final = 1_000

_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
# A probe shows whether Redis counts. Its name is one that no plan can have, so it is no tenant's bucket.
_PROBE: Final = Caller("", Scope.INGEST, replace(UNLIMITED, name=" probe"), "")


class _LimitQuestion(NamedTuple):
    """A question to Redis. `answer` becomes the script's result, or None if Redis is unavailable."""

    key: str
    arguments: bytes
    answer: asyncio.Future[bytes | None]


class RedisLimiter:
    """A limiter (collector.rate_limit.contract) in Redis. Call `open` first, and `close` at the end."""

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        timeout_s: float,
        processes: int,
        now_nano: Callable[[], int],
    ) -> None:
        """`url` is redis://HOST:PORT/DATABASE, or rediss:// for TLS with the system's authorities or those of `ca_file`.
        `processes` is the number of processes of all gateways together: without Redis this one admits one part of that number.
        `now_nano` is the same as that of LocalLimiter."""
        tls: dict[str, Any] = {} if ca_file is None else {"ssl_ca_certs": ca_file}
        self._redis: Final[Redis] = Redis.from_url(
            url,
            username=username,
            password=password,
            protocol=2,  # nothing here needs more, and its errors name the cause
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # a question and its answer are timed together, not each read
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            **tls,
        )
        self._logger: Final = structlog.get_logger(__name__)
        self._timeout_s: Final = timeout_s
        self._processes: Final = processes
        self._now: Final = SteadyClock(now_nano)
        self._local_limiter: Final = LocalLimiter(now_nano, processes)
        # The usage of each bucket that Redis last reported, which is the least that is used now: others only take more. Usage
        # that another process gives back is seen with the next answer.
        self._known: Final = Buckets()
        self._refused: Final = Buckets()
        self._waiting: Final[list[_LimitQuestion]] = []
        self._wake: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure: str | None = "it was not reached yet"
        self._reminder: Final = Reminder()

    @property
    def failure(self) -> str | None:
        """Return why this process counts alone; None if Redis counts."""
        return self._failure

    async def open(self) -> None:
        """Probe Redis for about a second at most, and then start with or without it. Raises nothing."""
        await self._probe()
        self._task = asyncio.create_task(self._run(), name="limits in Redis")

    async def close(self) -> None:
        """Close the connection. Requests that still wait are counted by this process's share."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._failure = "it is closed here"
        self._continue_locally()
        await self._redis.aclose()

    def check(self, caller: Caller, size_bytes: int) -> None:
        now = self._now()
        if self._failure is None:
            self._known.check(caller, size_bytes, now)
        else:
            self._local_limiter.check(caller, size_bytes)
        self._refused.check(caller, size_bytes, now)

    async def take(self, caller: Caller, items: int, size_bytes: int) -> None:
        plan = caller.plan
        if not plan.is_limited:
            return
        costs = (1, items, size_bytes)
        require_possible(plan, costs)
        reply = await self._ask(caller, take_arguments(plan, costs))
        if reply is None:
            await self._local_limiter.take(caller, items, size_bytes)
            return
        fits, used = reply
        if not fits:
            raise limited(plan, used, costs)

    def refused(self, caller: Caller, size_bytes: int) -> float:
        return self._refused.charge(caller, size_bytes, self._now()) if caller.plan.is_limited else 0.0

    async def give_back(self, caller: Caller, items: int, size_bytes: int) -> None:
        plan = caller.plan
        if plan.is_limited and await self._ask(caller, give_back_arguments(plan, (1, items, size_bytes))) is None:
            await self._local_limiter.give_back(caller, items, size_bytes)

    async def _ask(self, caller: Caller, arguments: bytes) -> tuple[bool, Three] | None:
        """Return the answer of Redis, and remember its usage; None if Redis is unavailable."""
        if self._failure is not None:
            return None
        asked_at = self._now() - _REDIS_TICK_NANO
        question = _LimitQuestion(key(caller), arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        self._wake.set()
        packed = await question.answer
        if packed is None:
            return None
        reply = answer(packed)
        self._known.learn(caller, reply[1], asked_at)
        return reply

    async def _run(self) -> None:
        while True:
            if self._failure is not None:
                await asyncio.sleep(_PROBE_INTERVAL_S)
                if await self._probe():
                    self._logger.info("Redis is back, so gateways hold tenants to their plans together again")
            elif self._waiting:
                together = [question for question in self._waiting[:_TOGETHER_MAX] if not question.answer.done()]
                del self._waiting[:_TOGETHER_MAX]
                await self._answer_questions(together)
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _answer_questions(self, questions: Sequence[_LimitQuestion]) -> None:
        """Ask Redis, and answer every question, whatever happens."""
        answers: Sequence[bytes | None] = [None] * len(questions)
        try:
            answers = await self._run_script([(question.key, question.arguments) for question in questions])
        except Exception as error:  # noqa: BLE001  # whatever fails in Redis, requests go on without it
            self._failure = _reason_of(error, self._timeout_s)
            if self._reminder.due():
                self._log_unavailable()
            self._continue_locally()
        finally:
            for question, reply in zip(questions, answers, strict=True):
                if not question.answer.done():
                    question.answer.set_result(reply)
        if self._failure is not None:
            await self._disconnect()

    async def _probe(self) -> bool:
        """Return whether Redis counts. Connecting may take longer than an answer: no request waits for it."""
        timeout_s = max(self._timeout_s, _CONNECT_TIMEOUT_S)
        try:
            async with asyncio.timeout(timeout_s):
                await self._redis.ping()
            timeout_s = self._timeout_s
            await self._run_script([(key(_PROBE), take_arguments(_PROBE.plan, (1, 0, 0)))])
        except Exception as error:  # noqa: BLE001  # as above
            self._failure = _reason_of(error, timeout_s)
            if self._reminder.due():
                self._log_unavailable()
            await self._disconnect()
            return False
        self._failure = None
        self._reminder.over()
        return True

    async def _run_script(self, calls: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Return the script's answer to each call. Raises the error of Redis or the connection, if any call failed."""
        async with asyncio.timeout(self._timeout_s):
            answers = await self._send(calls)
            # A Redis that was restarted does not have the script. It has not counted the calls that it did not run.
            unseen = [number for number, reply in enumerate(answers) if isinstance(reply, NoScriptError)]
            if unseen:
                await self._redis.script_load(SCRIPT)
                for number, reply in zip(unseen, await self._send([calls[number] for number in unseen]), strict=True):
                    answers[number] = reply
        for reply in answers:
            if isinstance(reply, Exception):
                raise reply
        return answers

    async def _send(self, calls: Sequence[tuple[str, bytes]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for name, arguments in calls:
            pipeline.evalsha(_SHA, 1, name, arguments)
        return await pipeline.execute(raise_on_error=False)

    async def _disconnect(self) -> None:
        """Close all connections. After a failure none is used again, since the answer to an old question may still arrive."""
        with contextlib.suppress(Exception):  # whatever fails, Redis must be probed again
            await self._redis.connection_pool.disconnect()

    def _log_unavailable(self) -> None:
        self._logger.warning(
            "Redis is away, so this process goes on alone with its share of tenants' plans",
            error=self._failure,
            share=f"1/{self._processes}",
        )

    def _continue_locally(self) -> None:
        """Answer all waiting questions with None."""
        for question in self._waiting:
            if not question.answer.done():
                question.answer.set_result(None)
        self._waiting.clear()


def _reason_of(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s * 1000:g} ms"
    return str(error) or type(error).__name__
