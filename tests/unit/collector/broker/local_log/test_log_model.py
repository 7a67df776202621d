"""The local log against a model of it: lists in memory. Hypothesis looks for a sequence of calls where they part."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.examples import examples
from support.fakes.brokers import TOPICS, limits

from collector.broker.contract import BrokerDown, Message, Range
from collector.broker.local_log import LocalLog

T = TypeVar("T")

# Around everything that a size decides: nothing, small, larger than a page, than half a chunk, than a chunk.
SIZES = st.sampled_from([0, 1, 100, 5_000, 20_000, 130_000, 300_000])


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.directory = Path(self.place.name) / "log"
        self.loop = asyncio.new_event_loop()
        self.log = self.run(self.open())
        self.messages: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}  # all that were ever appended
        self.committed = dict.fromkeys(TOPICS, 0)
        self.intents: dict[str, int] = {}
        self.in_hand: dict[str, Range] = {}
        self.last: Range | None = None
        self.number = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def open(self) -> LocalLog:
        return await LocalLog.open(self.directory, limits(spare_bytes_max=0), TOPICS)

    def payload(self, size: int) -> bytes:
        self.number += 1
        return (b"%d," % self.number * (size // 2 + 1))[:size]

    @rule(appends=st.lists(st.lists(st.tuples(st.sampled_from(TOPICS), SIZES), max_size=6), min_size=1, max_size=6))
    def append(self, appends: list[list[tuple[str, int]]]) -> None:
        """All at once: they share transactions, in the order of the calls."""
        sent = [[Message(topic, self.payload(size)) for topic, size in messages] for messages in appends]

        async def send() -> None:
            await asyncio.gather(*map(self.log.append, sent))

        self.run(send())
        for message in (message for messages in sent for message in messages):
            self.messages[message.topic].append(message.payload)

    @rule(bytes_max=SIZES)
    def poll(self, bytes_max: int) -> None:
        polled = self.run(self.log.poll(bytes_max, 0))
        if polled is None:
            assert all(len(self.messages[topic]) == self.committed[topic] for topic in TOPICS)
            return
        topic, start = polled.partition.topic, self.committed[polled.partition.topic]
        assert polled.start == start
        assert polled.in_doubt == (topic in self.intents)
        assert self.messages[topic][start : polled.end] == list(polled.payloads)
        size = sum(map(len, polled.payloads))
        if polled.in_doubt:
            assert polled.end == self.intents[topic]
        else:
            assert len(polled.payloads) == 1 or size <= bytes_max
            more = self.messages[topic][polled.end : polled.end + 1]
            assert not more or size + len(more[0]) > bytes_max
        self.in_hand[topic] = polled

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def intend(self, data: st.DataObject) -> None:
        polled = self.in_hand[data.draw(st.sampled_from(sorted(self.in_hand)))]
        topic = polled.partition.topic
        if self.intents.get(topic, polled.end) == polled.end:
            self.run(self.log.intend(polled))
            self.intents[topic] = polled.end
        else:
            self.refused(self.log.intend(polled))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        polled = self.in_hand[data.draw(st.sampled_from(sorted(self.in_hand)))]
        topic = polled.partition.topic
        if self.intents.get(topic) == polled.end:
            self.run(self.log.commit(polled))
            self.committed[topic] = self.intents.pop(topic)
            self.last = self.in_hand.pop(topic)
        else:
            self.refused(self.log.commit(polled))

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat_the_last_commit(self) -> None:
        assert self.last is not None
        self.run(self.log.commit(self.last))
        self.refused(self.log.intend(self.last))

    @rule()
    def restart(self) -> None:
        self.run(self.log.close())
        self.log = self.run(self.open())
        self.in_hand.clear()

    def refused(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self.run(work)
        except BrokerDown:
            return
        raise AssertionError("should have been refused")

    @invariant()
    def lag_is_what_is_not_committed(self) -> None:
        lag = {partition.topic: count for partition, count in self.run(self.log.lag()).items()}
        assert {topic: len(self.messages[topic]) - self.committed[topic] for topic in TOPICS} == lag

    def teardown(self) -> None:
        self.run(self.log.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.place.cleanup()


TestLocalLog = LogMachine.TestCase
TestLocalLog.settings = settings(examples(60), stateful_step_count=30)
