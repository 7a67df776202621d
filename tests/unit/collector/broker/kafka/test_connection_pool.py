"""Connections to brokers are kept as long as they are used, and each is asked in turns."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError

from collector.broker.kafka import connection_pool as under_test
from collector.broker.kafka.connection_pool import Brokers, NotAsked
from collector.broker.kafka.options import KafkaOptions
from collector.broker.kafka.transport import ReceiveCallback

API = (1, 10)  # fetches messages
COMMIT_API = (8, 2)


class Connection:
    """In the place of Frames."""

    opened: list["Connection"]

    def __init__(self, *address: object) -> None:
        self.address = address
        self.is_open = True
        self.versions = {API[0]: (0, API[1]), COMMIT_API[0]: (0, COMMIT_API[1])}
        self.asked = 0
        self.answer = asyncio.Event()
        self.answer.set()

    @classmethod
    async def open(cls, _options: KafkaOptions, *address: object) -> "Connection":
        cls.opened.append(cls(*address))
        return cls.opened[-1]

    async def ask(self, _api: tuple[int, int], _request: list[bytes], came: ReceiveCallback | None) -> memoryview:
        assert self.is_open
        self.asked += 1
        assert self.asked == 1, "one at a time"
        await self.answer.wait()
        self.asked -= 1
        answer = memoryview(b"answer")
        if came is not None:
            came(answer, len(answer))
        return answer

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    Connection.opened = []
    monkeypatch.setattr(under_test, "Frames", Connection)
    return Connection.opened


def client(*nodes: int) -> Any:
    known = {node: SimpleNamespace(host="broker", port=node) for node in nodes}
    told: list[str] = []
    cluster = SimpleNamespace(broker_metadata=known.get)
    return SimpleNamespace(
        cluster=cluster,
        force_metadata_update=lambda: told.append("update"),
        lost=lambda node: told.append(f"lost {node}"),
        told=told,
    )


async def test_one_connection_to_each(connections: list[Connection]) -> None:
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"]))
    for node in (1, 2, 1, 2):
        told: list[int] = []
        answer = await brokers.ask(client(1, 2), node, API, [b""], lambda _, have: told.append(have))  # noqa: B023 - called at once
        assert (bytes(answer), told) == (b"answer", [6])
    assert [one.address for one in connections] == [("broker", 1), ("broker", 2)]


async def test_a_version_that_a_broker_does_not_know_is_not_asked_for(connections: list[Connection]) -> None:
    """It would close the connection without an answer; and the connection can still be used."""
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"]))
    for api in [(1, 11), (1, 12)]:
        with pytest.raises(IncompatibleBrokerVersion, match=rf"request {api[0]}, not {api[1]}"):
            await brokers.ask(client(1), 1, api, [b""])
    assert b"answer" == bytes(await brokers.ask(client(1), 1, API, [b""]))
    assert 1 == len(connections)


async def test_in_turns(connections: list[Connection]) -> None:
    """A caller of a broker that is busy with a request waits; another broker answers meanwhile."""
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"]))
    await brokers.ask(client(1), 1, API, [b""])
    connections[0].answer.clear()
    asking = [asyncio.create_task(brokers.ask(client(1), 1, API, [b""])) for _ in range(3)]
    await brokers.ask(client(2), 2, API, [b""])
    assert not any(task.done() for task in asking)
    connections[0].answer.set()
    await asyncio.gather(*asking)
    assert len(connections) == 2


async def test_what_was_closed_or_not_used_for_long_is_made_anew(
    connections: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies between may forget a connection without a word."""
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"]))
    await brokers.ask(client(1), 1, API, [b""])
    connections[0].close()
    await brokers.ask(client(1), 1, API, [b""])
    assert len(connections) == 2
    monkeypatch.setattr(under_test, "_UNUSED_MAX_S", 0.0)
    await brokers.ask(client(1), 1, API, [b""])
    assert [one.is_open for one in connections] == [False, False, True]


async def test_a_broker_that_is_not_known(connections: list[Connection]) -> None:
    asked = client(1)
    with pytest.raises(NotAsked):
        await Brokers(KafkaOptions(bootstrap=["b:1"])).ask(asked, 2, API, [b""])
    assert asked.told == ["update"]
    assert connections == []


async def test_a_broker_that_was_not_asked(connections: list[Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection, the broker can't have had the request; with one, it can."""
    asked = client(1)
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"], answer_timeout_s=0.05))

    async def refused(*_: object) -> Connection:
        raise ConnectionRefusedError

    async def silent(*_: object) -> Connection:
        await asyncio.Event().wait()
        raise AssertionError

    for open_ in (refused, silent):
        with monkeypatch.context() as broken:
            broken.setattr(Connection, "open", open_)
            with pytest.raises(NotAsked):
                await brokers.ask(asked, 1, COMMIT_API, [b""])
    await brokers.ask(asked, 1, COMMIT_API, [b""])
    connections[0].answer.clear()
    with pytest.raises(TimeoutError):
        await brokers.ask(asked, 1, COMMIT_API, [b""])
    assert ["lost 1"] * 3 == asked.told


async def test_what_is_small_does_not_wait_for_messages(connections: list[Connection]) -> None:
    """A slow answer full of messages holds up no commit to the same broker."""
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"]))
    await brokers.ask(client(1), 1, API, [b""])
    connections[0].answer.clear()
    fetching = asyncio.create_task(brokers.ask(client(1), 1, API, [b""]))
    await brokers.ask(client(1), 1, COMMIT_API, [b""])
    assert not fetching.done()
    connections[0].answer.set()
    await fetching


async def test_closed(connections: list[Connection]) -> None:
    brokers = Brokers(KafkaOptions(bootstrap=["b:1"]))
    await brokers.ask(client(1), 1, API, [b""])
    brokers.close()
    assert not connections[0].is_open
    with pytest.raises(KafkaConnectionError):
        await brokers.ask(client(1), 1, API, [b""])
    assert not any(one.is_open for one in connections)
