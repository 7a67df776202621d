"""What collector/broker/contract.py promises, of every broker there is."""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.fakes.brokers import BROKERS, MIB, BrokerUnderTest
from support.processes.appender import payload as appended_payload
from support.processes.commands import run_and_kill

from collector.broker.contract import BrokerFull, Consumer, Message, Producer, Range

# Long enough that a wait in vain is found by the test's own timeout.
FOR_EVER_S = 600.0


@pytest.fixture(params=list(BROKERS))
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> BrokerUnderTest:
    made = BROKERS[request.param](tmp_path / "log")
    if reason := made.lacks.get(request.node.originalname):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    return made


async def append(producer: Producer, topic: str, payloads: Sequence[bytes]) -> None:
    await producer.append([Message(topic, payload) for payload in payloads])


async def poll(consumer: Consumer, bytes_max: int = 64 * MIB) -> Range:
    """The next range, which is there already."""
    polled = await consumer.poll(bytes_max, FOR_EVER_S)
    assert polled is not None
    return polled


async def take(consumer: Consumer, bytes_max: int = 64 * MIB) -> Range:
    """Poll, intend and commit."""
    polled = await poll(consumer, bytes_max)
    await consumer.intend(polled)
    await consumer.commit(polled)
    return polled


async def take_all(consumer: Consumer) -> dict[str, list[bytes]]:
    """All that is there, by topic."""
    taken: dict[str, list[bytes]] = defaultdict(list)
    while any((await consumer.lag()).values()):
        messages = await take(consumer, MIB)
        taken[messages.partition.topic] += map(bytes, messages.payloads)
    return taken


async def test_messages_are_read_in_order_and_to_the_byte(broker: BrokerUnderTest) -> None:
    """Appends of one message and of many, small and large, come out as they went in."""
    appends = [[b"\0"], [b"a", b"", b"\xff" * 100], [os.urandom(600_000)], [bytes([n % 256]) * n for n in range(2000)], [b"z"]]
    async with broker.open() as (producer, consumer):
        for payloads in appends:
            await append(producer, broker.topics[0], payloads)
        taken = await take_all(consumer)
    assert {broker.topics[0]: [payload for payloads in appends for payload in payloads]} == taken


async def test_messages_outlive_a_restart(broker: BrokerUnderTest) -> None:
    """What one process appended, the next one reads."""
    async with broker.open() as (producer, _):
        await append(producer, broker.topics[0], [b"a", b"b"])
    async with broker.open() as (producer, consumer):
        await append(producer, broker.topics[0], [b"c"])
        assert {broker.topics[0]: [b"a", b"b", b"c"]} == await take_all(consumer)


async def test_a_range_is_no_larger_than_asked_for(broker: BrokerUnderTest) -> None:
    """Whatever shared an append, a range holds as many messages as fit, and follows the one before."""
    async with broker.open() as (producer, consumer):
        await append(producer, broker.topics[0], [b"x" * 10] * 7 + [b"y" * 40] + [b"z"])
        ranges = [await take(consumer, 25) for _ in range(6)]
    assert [[10, 10], [10, 10], [10, 10], [10], [40], [1]] == [[len(payload) for payload in each.payloads] for each in ranges]
    assert [each.end for each in ranges[:-1]] == [each.start for each in ranges[1:]]


async def test_nothing_to_read_is_none(broker: BrokerUnderTest) -> None:
    async with broker.open() as (_, consumer):
        assert await consumer.poll(MIB, 0.0) is None
        assert await consumer.poll(MIB, 0.05) is None


async def test_an_append_wakes_a_waiting_poll(broker: BrokerUnderTest) -> None:
    """A poll that waits returns when something is appended, not when its time is up."""
    async with broker.open() as (producer, consumer):
        for number in range(3):
            polling = asyncio.create_task(poll(consumer))
            await asyncio.sleep(0.01)
            await append(producer, broker.topics[number], [b"here"])
            messages = await polling
            assert (broker.topics[number], [b"here"]) == (messages.partition.topic, list(messages.payloads))
            await consumer.intend(messages)
            await consumer.commit(messages)


async def test_what_is_not_committed_comes_back(broker: BrokerUnderTest) -> None:
    """A range that was polled and abandoned is polled again; without an intent it is in no doubt, and may have grown."""
    async with broker.open() as (producer, consumer):
        await append(producer, broker.topics[0], [b"a"])
        first = await poll(consumer)
        await append(producer, broker.topics[0], [b"b"])
        second = await poll(consumer)
    assert ([b"a"], False) == (list(first.payloads), first.in_doubt)
    assert ([b"a", b"b"], first.start, False) == (list(second.payloads), second.start, second.in_doubt)


@pytest.mark.parametrize("restart", [False, True])
async def test_an_intent_fixes_the_range(broker: BrokerUnderTest, restart: bool) -> None:
    """After an intent, exactly that range comes back, in doubt, whatever was appended since and however much is asked for."""
    topic = broker.topics[1]
    async with broker.open() as (producer, consumer):
        await append(producer, topic, [b"%d" % number for number in range(10)])
        await take(consumer, 3)
        intended = await poll(consumer, 4)
        await consumer.intend(intended)
        await append(producer, topic, [b"later"])
        if not restart:
            assert intended._replace(in_doubt=True) == await poll(consumer)
    async with broker.open() as (_, consumer):
        for bytes_max in (1, MIB):
            assert intended._replace(in_doubt=True) == await poll(consumer, bytes_max)
        await consumer.intend(intended)
        await consumer.commit(intended)
        rest = await poll(consumer)
    assert [b"3", b"4", b"5", b"6"] == list(intended.payloads)
    assert (intended.end, [b"7", b"8", b"9", b"later"], False) == (rest.start, list(rest.payloads), rest.in_doubt)


async def test_intent_and_commit_may_be_repeated(broker: BrokerUnderTest) -> None:
    """A caller that got no answer repeats it."""
    async with broker.open() as (producer, consumer):
        await append(producer, broker.topics[0], [b"a", b"b"])
        first = await poll(consumer, 1)
        for _ in range(2):
            await consumer.intend(first)
        for _ in range(2):
            await consumer.commit(first)
        assert [b"b"] == list((await poll(consumer)).payloads)


async def test_offsets_never_repeat(broker: BrokerUnderTest) -> None:
    """They do not repeat even if everything was taken before a restart: the next message follows the last that ever was."""
    end = None
    for _ in range(3):
        async with broker.open() as (producer, consumer):
            await append(producer, broker.topics[0], [b"a", b"b", b"c"])
            messages = await take(consumer)
            assert end is None or messages.start == end
            assert messages.end == messages.start + 3
            end = messages.end


async def test_partitions_take_turns(broker: BrokerUnderTest) -> None:
    """A topic with much to read does not keep the others from being read."""
    async with broker.open() as (producer, consumer):
        for topic in broker.topics:
            await append(producer, topic, [b"x"] * 4)
        order = [(await take(consumer, 1)).partition.topic for _ in range(12)]
    for turn in range(4):
        assert set(broker.topics) == set(order[3 * turn : 3 * turn + 3])


async def test_lag_counts_what_is_not_committed(broker: BrokerUnderTest) -> None:
    async with broker.open() as (producer, consumer):
        await producer.append(
            [Message(broker.topics[0], b"a"), Message(broker.topics[1], b"b"), Message(broker.topics[0], b"c")]
        )
        lag = {partition.topic: messages for partition, messages in (await consumer.lag()).items()}
        assert dict(zip(broker.topics, [2, 1, 0], strict=True)) == lag
        messages = await poll(consumer)
        await consumer.intend(messages)
        assert lag == {partition.topic: count for partition, count in (await consumer.lag()).items()}
        await consumer.commit(messages)
        assert 0 == (await consumer.lag())[messages.partition]


async def test_positions_tell_what_is_there_and_what_is_committed(broker: BrokerUnderTest) -> None:
    """An append that has returned is before `end`, a commit that has is before `committed`; after a restart too."""
    async with broker.open() as (producer, consumer):
        before = await consumer.positions()
        assert set(broker.topics) == {partition.topic for partition in before}
        assert all(position.committed == position.end for position in before.values())
        await append(producer, broker.topics[0], [b"a", b"b"])
        messages = await take(consumer, 1)
        positions = await consumer.positions()
    assert (messages.end, messages.end + 1) == positions[messages.partition]
    async with broker.open() as (_, consumer):
        assert positions == await consumer.positions()


async def test_many_appends_at_once(broker: BrokerUnderTest) -> None:
    """Each is kept once, and those of one sender in the order in which they were acknowledged."""
    async with broker.open() as (producer, consumer):

        async def send(sender: int) -> None:
            for number in range(20):
                await append(producer, broker.topics[sender % 3], [b"%d %d" % (sender, number)])

        await asyncio.gather(*(send(sender) for sender in range(60)))
        taken = await take_all(consumer)
    by_sender: dict[int, list[int]] = defaultdict(list)
    for topic, payloads in taken.items():
        for sender, number in (map(int, payload.split()) for payload in payloads):
            assert broker.topics[sender % 3] == topic
            by_sender[sender].append(number)
    assert {sender: list(range(20)) for sender in range(60)} == by_sender


async def test_appending_and_taking_at_once(broker: BrokerUnderTest) -> None:
    """Readers and writers get in nobody's way: everything is read once, in order."""
    count = 2000
    async with broker.open() as (producer, consumer):

        async def send() -> None:
            for number in range(0, count, 4):
                await append(producer, broker.topics[0], [b"%d" % n for n in range(number, number + 4)])

        sending = asyncio.create_task(send())
        taken: list[bytes] = []
        while len(taken) < count:
            taken += map(bytes, (await take(consumer, 100)).payloads)
        await sending
    assert [b"%d" % number for number in range(count)] == taken


async def test_full_refuses_and_drops_nothing(broker: BrokerUnderTest) -> None:
    """Past its size an append is refused as a whole; what was acknowledged is there; what is taken makes room again."""
    room = 4 * MIB
    payload = os.urandom(100_000)
    async with broker.open(bytes_max=room) as (producer, consumer):
        for _ in range(2):
            kept = await fill(producer, [Message(topic, payload) for topic in broker.topics[:2]])
            assert room // 2 < 2 * kept * len(payload) <= room
            assert {topic: [payload] * kept for topic in broker.topics[:2]} == await take_all(consumer)


async def fill(producer: Producer, messages: Sequence[Message]) -> int:
    """How many such appends it took until it was full."""
    for kept in range(1000):
        try:
            await producer.append(messages)
        except BrokerFull:
            return kept
    raise AssertionError("it is never full")


async def test_a_cancelled_append_is_kept_whole_or_not_at_all(broker: BrokerUnderTest) -> None:
    """A client that goes away takes nobody else's messages with it, and leaves no halves."""
    lot = random.Random(7)
    acknowledged: set[bytes] = set()
    async with broker.open() as (producer, consumer):

        async def send(name: bytes) -> None:
            await producer.append([Message(topic, name) for topic in broker.topics])
            acknowledged.add(name)

        for wave in range(20):
            tasks = [asyncio.create_task(send(b"%d %d" % (wave, number))) for number in range(30)]
            for _ in range(lot.randrange(4)):
                await asyncio.sleep(lot.choice([0, 0.001]))
            for task in lot.sample(tasks, 15):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        taken = await take_all(consumer)
    kept = [sorted(taken[topic]) for topic in broker.topics]
    assert kept[0] == kept[1] == kept[2]
    assert len(set(kept[0])) == len(kept[0])
    assert acknowledged <= set(kept[0])


async def test_a_cancelled_poll_loses_nothing(broker: BrokerUnderTest) -> None:
    async with broker.open() as (producer, consumer):
        for number in range(20):
            polling = asyncio.create_task(poll(consumer))
            await asyncio.sleep(0)
            await append(producer, broker.topics[0], [b"%d" % number])
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        assert {broker.topics[0]: [b"%d" % number for number in range(20)]} == await take_all(consumer)


async def test_kill_9_loses_nothing_that_was_acknowledged(broker: BrokerUnderTest) -> None:
    """A process that appends is killed at any moment, again and again: what it was answered is kept is there, once, to the
    byte, and of every append all messages or none; or all but the last, where the broker is not atomic."""
    lot = random.Random(3)
    acknowledged: list[str] = []
    for _ in range(6):
        lines = lot.randrange(1, 400)
        output = await asyncio.to_thread(run_and_kill, broker.appender(), lines)
        assert lines <= len(output)
        acknowledged += output
    async with broker.open() as (_, consumer):
        taken = await take_all(consumer)
    kept = [sorted(payload.split()[0].decode() for payload in taken[topic]) for topic in broker.topics]
    assert kept[0] == kept[1]
    assert kept[2] == kept[0] if broker.atomic else set(kept[2]) <= set(kept[0])
    assert all(len(set(names)) == len(names) for names in kept)
    assert set(acknowledged) <= set(kept[2])
    assert all(appended_payload(payload.split()[0].decode()) == payload for payload in taken[broker.topics[0]])


async def test_an_intent_keeps_what_is_left_out(broker: BrokerUnderTest) -> None:
    """Each reader of the range in doubt gets the same; the range after it has none."""
    async with broker.open() as (producer, consumer):
        await append(producer, broker.topics[0], [b"a", b"b", b"c"])
        intended = (await poll(consumer))._replace(left_out=b"\x05", depth=1)
        await consumer.intend(intended)
        again = await poll(consumer)
        assert (True, b"\x05", 1, intended.log) == (again.in_doubt, again.left_out, again.depth, again.log)
    async with broker.open() as (producer, consumer):
        again = await poll(consumer)
        assert (True, b"\x05", 1, intended.log) == (again.in_doubt, again.left_out, again.depth, again.log)
        await consumer.intend(again._replace(depth=2))
        await consumer.commit(again)
        await append(producer, broker.topics[0], [b"d"])
        after = await take(consumer)
        assert (False, b"") == (after.in_doubt, after.left_out)
