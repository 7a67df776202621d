"""A broker that may be unavailable at the start: it is opened in the background as soon as it can be reached.

Invariants:
1. No call waits for the broker. Until it is open, every call fails as it does with a broker that is unavailable: senders are
   asked to retry, the writer retries, and /healthz reports it (test_until_it_is_there_every_call_fails_and_then_none_does).
2. An error that waiting cannot fix ends the process (test_what_waiting_does_not_change_ends_it).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

import structlog

from collector.broker.contract import BrokerDown, Consumer, Message, Partition, Position, Producer, Range
from collector.runtime.reminders import Reminder

_RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class BrokerSide(Protocol):
    """The methods that both sides have in addition to their contract."""

    @property
    def failure(self) -> str | None:
        """Return why this side does not work; None if it works, as far as is known."""

    async def close(self) -> None:
        """Finish the calls that already wait, and refuse new ones."""


class ProducerSide(BrokerSide, Producer, Protocol):
    """The side that appends."""

    @property
    def unproven(self) -> str | None:
        """Return why appends failed, as long as none has succeeded since."""

    async def ping(self) -> None:
        """Ask the broker whether it can be written. Raises BrokerDown if not."""


class ConsumerSide(BrokerSide, Consumer, Protocol):
    """The side that reads."""


S = TypeVar("S", bound=BrokerSide)


class _LazySide(Generic[S]):
    """Opens one side. `side` is None until then."""

    def __init__(self, open_: Callable[[], Awaitable[S]]) -> None:
        self.side: S | None = None
        self.failure: str | None = "it was not reached yet"
        self.tried: Final = asyncio.Event()
        self._open: Final = open_

    async def open(self) -> None:
        """Try to open the side until that succeeds. Raises every error but BrokerDown, after which it tries again."""
        reminder = Reminder()
        while self.side is None:
            try:
                self.side = await self._open()
            except BrokerDown as error:
                if reminder.due(str(error)):
                    log.warning("the broker is not available yet: waiting for it", error=str(error))
                self.failure = str(error)
                self.tried.set()
                await asyncio.sleep(_RETRY_S)
        self.failure = None
        self.tried.set()

    def opened(self) -> S:
        """Return the open side. Raises BrokerDown if it is not open yet."""
        if self.side is None:
            self._raise_not_open()
        return self.side

    def _raise_not_open(self) -> NoReturn:
        raise BrokerDown(f"the broker is not available yet: {self.failure}")

    @property
    def current_failure(self) -> str | None:
        return self.failure if self.side is None else self.side.failure

    async def close(self) -> None:
        if self.side is not None:
            await self.side.close()


async def _no_consumer() -> NoReturn:
    raise AssertionError("this process does not read from the broker")


class LazyBroker:
    """Producer and Consumer (collector.broker.contract) of a broker that `run` opens. Run that in a task."""

    def __init__(
        self,
        open_producer: Callable[[], Awaitable[ProducerSide]],
        open_consumer: Callable[[], Awaitable[ConsumerSide]] | None,
    ) -> None:
        """Each function raises BrokerDown if the broker is unavailable, and another error if waiting is useless. Without
        `open_consumer`, no method that reads may be called."""
        self._producer: Final = _LazySide(open_producer)
        self._consumer: Final = _LazySide(open_consumer or _no_consumer)
        self._reads: Final = open_consumer is not None

    async def run(self) -> None:
        """Open both sides, and wait until cancelled. Raises errors that waiting cannot fix."""
        await self._producer.open()
        if self._reads:
            await self._consumer.open()
        await asyncio.Event().wait()

    async def wait_until_tried(self, timeout_s: float) -> None:
        """Return when the broker is open, when the first attempt to open it has failed, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._producer.tried.wait()
                if self._reads and self._producer.side is not None:
                    await self._consumer.tried.wait()

    async def close(self) -> None:
        """Close the consumer, and then the producer: the consumer may still have messages that become dead letters."""
        await self._consumer.close()
        await self._producer.close()

    @property
    def failure(self) -> str | None:
        """Return why the broker can't be written, or read if this process reads it; None if it can."""
        return self._producer.current_failure or (self._consumer.current_failure if self._reads else None)

    @property
    def unproven(self) -> str | None:
        """Return why appends failed, as long as none has succeeded since."""
        return self._producer.side.unproven if self._producer.side is not None else None

    def append(self, messages: Sequence[Message]) -> Coroutine[Any, Any, None]:
        # Not `async`: every request would pass through another coroutine, which is interpreted.
        side = self._producer.side
        return self._append_nowhere() if side is None else side.append(messages)

    async def _append_nowhere(self) -> None:
        self._producer.opened()

    async def ping(self) -> None:
        await self._producer.opened().ping()

    def _reader(self) -> ConsumerSide:
        """Return the open consumer. Raises BrokerDown if it is not open yet."""
        self._producer.opened()  # it is opened first, and knows the reason of a failure
        return self._consumer.opened()

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        return await self._reader().poll(bytes_max, wait_s)

    async def intend(self, messages: Range) -> None:
        await self._reader().intend(messages)

    async def commit(self, messages: Range) -> None:
        await self._reader().commit(messages)

    async def positions(self) -> dict[Partition, Position]:
        return await self._reader().positions()

    async def progress(self) -> dict[Partition, Position]:
        return await self._reader().progress()

    async def lag(self) -> dict[Partition, int]:
        return await self._reader().lag()
