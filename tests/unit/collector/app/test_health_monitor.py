"""The health of broker and store, and what is shown of it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.fakes.receiving import counted
from support.waiting import eventually

from collector.api.health import CLICKHOUSE, EMBEDDED_ENGINE, EMBEDDED_LOG, KAFKA, NOT_USED
from collector.app.health_monitor import HealthMonitor
from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, BrokerDown, Partition, Position
from collector.runtime.disk import Disk, Space
from collector.store.contract import StoreUnavailable
from collector.telemetry.metrics import Metrics

FIRST, SECOND = Partition(LOGS_TOPIC, 0), Partition(LOGS_TOPIC, 1)


class Broker:
    """As the test sets it."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.unproven: str | None = None
        self.at: dict[Partition, Position] = {FIRST: Position(2, 5), SECOND: Position(0, 4)}
        self.letters = Position(0, 0)

    async def ping(self) -> None:
        if self.failure is not None:
            raise BrokerDown(self.failure)

    async def progress(self) -> dict[Partition, Position]:
        await self.ping()
        return self.at

    async def positions(self) -> dict[Partition, Position]:
        await self.ping()
        return {FIRST: Position(0, 9), Partition(DEAD_LETTERS_TOPIC, 0): self.letters}


def states(monitor: HealthMonitor) -> tuple[str, str, str]:
    """Of the store, the broker and the local log."""
    health = monitor.health()
    return health.clickhouse, health.kafka, health.log


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.app.health_monitor._INTERVAL_S", 0.01)
    monkeypatch.setattr("collector.app.health_monitor._AWAY_INTERVAL_S", 0.01)
    monkeypatch.setattr("collector.app.health_monitor._DEAD_LETTERS_INTERVAL_S", 0.01)
    monkeypatch.setattr("collector.app.health_monitor._DAMAGED_PARTS_INTERVAL_S", 0.01)


@asynccontextmanager
async def running(monitor: HealthMonitor) -> AsyncIterator[None]:
    task = asyncio.create_task(monitor.run())
    try:
        yield
    finally:
        task.cancel()


async def test_a_gateway_says_nothing_of_the_store() -> None:
    metrics, broker = Metrics(), Broker()
    monitor = HealthMonitor(metrics, broker)
    assert states(monitor) == (NOT_USED, "ok", NOT_USED)
    async with running(monitor):
        await eventually(lambda: counted(metrics, "infrasage_up", part="broker") == 1)
        assert 'infrasage_up{part="store"}' not in metrics.expose("")[0].decode()
        broker.failure = "away"
        assert monitor.health().kafka == "unavailable", "at once, not at the next look"


async def test_the_lag_is_shown_of_what_is_ours_and_only_while_it_is_known() -> None:
    """Another's partition, and one that nobody can ask for, are not shown; the writer gets those that are ours."""
    metrics, broker = Metrics(), Broker()
    told: list[Collection[Partition]] = []
    async with running(HealthMonitor(metrics, broker, owns=told.append, writer_state=lambda: "ok")):
        await eventually(lambda: counted(metrics, "infrasage_log_lag_messages", topic=LOGS_TOPIC, partition="1") == 4)
        broker.at = {FIRST: Position(5, 5)}
        await eventually(lambda: 'partition="1"' not in metrics.expose("")[0].decode())
        await eventually(lambda: set(told[-1]) == {FIRST})
        await eventually(lambda: counted(metrics, "infrasage_up", part="broker") == 1)
        broker.failure = "away"
        await eventually(lambda: 'partition="0"' not in metrics.expose("")[0].decode())
        await eventually(lambda: counted(metrics, "infrasage_up", part="broker") == 0)


async def test_a_store_is_asked_and_its_writer_too() -> None:
    """A server that does not answer is unavailable, one that takes no inserts what the writer says."""
    metrics, broker = Metrics(), Broker()
    away = threading.Event()
    state = ["ok"]

    def ping() -> None:
        if away.is_set():
            raise StoreUnavailable("connection refused")

    monitor = HealthMonitor(metrics, broker, ping_store=ping, writer_state=lambda: state[0])
    async with running(monitor):
        assert states(monitor) == ("ok", "ok", NOT_USED)
        state[0] = "degraded"
        assert states(monitor) == ("degraded", "ok", NOT_USED)
        broker.failure = "away"
        assert states(monitor) == ("ok", "unavailable", NOT_USED), "a writer that can't read says nothing of the store"
        await eventually(lambda: counted(metrics, "infrasage_up", part="store") == 1)
        away.set()
        await eventually(lambda: states(monitor) == ("unavailable", "unavailable", NOT_USED))
        await eventually(lambda: counted(metrics, "infrasage_up", part="store") == 0)
        away.clear()
        broker.failure = None
        state[0] = "ok"
        await eventually(lambda: states(monitor) == ("ok", "ok", NOT_USED))
        await eventually(lambda: counted(metrics, "infrasage_up", part="store") == 1)


async def test_a_store_that_stays_away_is_logged_again() -> None:
    """It is logged when it goes away, again after half a minute, and once when it is back."""
    metrics, now_s, asked = Metrics(), [0.0], []
    away = threading.Event()
    away.set()

    def ping() -> None:
        asked.append(now_s[0])
        if away.is_set():
            raise StoreUnavailable("connection refused")

    with capture_logs() as logs:
        monitor = HealthMonitor(metrics, Broker(), ping_store=ping, writer_state=lambda: "ok", clock=lambda: now_s[0])
        async with running(monitor):
            await eventually(lambda: len(asked) >= 2)
            assert 1 == len(logs)
            now_s[0] = 30.0
            await eventually(lambda: len(logs) == 2)
            away.clear()
            await eventually(lambda: len(logs) == 3)
    events = [entry["event"] for entry in logs]
    assert ["the store does not answer"] * 2 + ["the store answers again"] == events


async def test_a_store_that_hangs_hides_nothing_else() -> None:
    metrics, broker = Metrics(), Broker()
    hangs = threading.Event()
    monitor = HealthMonitor(metrics, broker, ping_store=lambda: (hangs.wait(10), None)[1], writer_state=lambda: "ok")
    async with running(monitor):
        await eventually(lambda: counted(metrics, "infrasage_up", part="broker") == 1)
        broker.failure = "away"
        await eventually(lambda: counted(metrics, "infrasage_up", part="broker") == 0)
        hangs.set()


async def test_open_dead_letters_are_counted_while_the_store_answers() -> None:
    """The last known number is shown while it does not."""
    metrics = Metrics()
    depth: list[int | StoreUnavailable] = [7]
    asked: list[None] = []

    def count() -> int:
        asked.append(None)
        if isinstance(depth[0], StoreUnavailable):
            raise depth[0]
        return depth[0]

    async with running(HealthMonitor(metrics, Broker(), dead_letters=count, writer_state=lambda: "ok")):
        await eventually(lambda: counted(metrics, "infrasage_dlq_depth") == 7)
        depth[0] = StoreUnavailable("away")
        asked.clear()
        await eventually(lambda: len(asked) > 2)
        assert counted(metrics, "infrasage_dlq_depth") == 7
        depth[0] = 8
        await eventually(lambda: counted(metrics, "infrasage_dlq_depth") == 8)


async def test_a_scrape_has_the_dead_letters_that_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are on their way to the store are waited for; without new ones the store is not asked."""
    monkeypatch.setattr("collector.app.health_monitor._DEAD_LETTERS_INTERVAL_S", 1000)
    metrics, broker = Metrics(), Broker()
    stored, asked = [0], [0]

    def count() -> int:
        asked[0] += 1
        return stored[0]

    async def caught_up(_timeout_s: float, _topic: str) -> bool:
        stored[0] = broker.letters.end
        broker.letters = Position(broker.letters.end, broker.letters.end)
        return True

    monitor = HealthMonitor(metrics, broker, dead_letters=count, writer_state=lambda: "ok", caught_up=caught_up)
    async with running(monitor):
        await eventually(lambda: asked[0] == 1)
        for number in (3, 5):
            broker.letters = Position(broker.letters.committed, number)
            await monitor.count_new_dead_letters()
            assert number == counted(metrics, "infrasage_dlq_depth")
            before = asked[0]
            await monitor.count_new_dead_letters()
            assert before == asked[0]
        broker.failure = "away"
        await monitor.count_new_dead_letters()


async def test_an_earlier_count_is_not_taken_for_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began before a dead letter was stored is followed by another, and what it finds is not shown after that."""
    monkeypatch.setattr("collector.app.health_monitor._DEAD_LETTERS_INTERVAL_S", 1000)
    metrics, broker, asked = Metrics(), Broker(), 0
    answers = [threading.Event() for _ in range(3)]

    def count() -> int:
        nonlocal asked
        asked += 1
        number, found = asked, broker.letters.end
        answers[number - 1].wait(10)
        return found

    async def caught_up(_timeout_s: float, _topic: str) -> bool:
        return True

    monitor = HealthMonitor(metrics, broker, dead_letters=count, writer_state=lambda: "ok", caught_up=caught_up)
    async with running(monitor):  # which counts by itself: that count hangs
        await eventually(lambda: asked == 1)
        broker.letters = Position(1, 1)
        first = asyncio.create_task(monitor.count_new_dead_letters())
        await eventually(lambda: asked == 2)
        broker.letters = Position(2, 2)
        second = asyncio.create_task(monitor.count_new_dead_letters())
        answers[1].set()
        await eventually(lambda: asked == 3)
        answers[2].set()
        await asyncio.gather(first, second)
        assert 2 == counted(metrics, "infrasage_dlq_depth")
        answers[0].set()
        await asyncio.sleep(0.05)  # the count that hung ends: with nothing to see
        assert 2 == counted(metrics, "infrasage_dlq_depth")


async def test_a_count_that_came_too_late_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says that dead letters were not stored in time, or that the store did not answer."""
    monkeypatch.setattr("collector.app.health_monitor._COUNTED_WAIT_S", 0.05)
    broker, found = Broker(), [3]
    is_stored = False

    def count() -> int:
        if found[0] < 0:
            raise StoreUnavailable("away")
        return found[0]

    async def caught_up(_timeout_s: float, topic: str) -> bool:
        assert topic == DEAD_LETTERS_TOPIC
        if is_stored:
            broker.letters = Position(broker.letters.end, broker.letters.end)
        return is_stored

    monitor = HealthMonitor(Metrics(), broker, dead_letters=count, writer_state=lambda: "ok", caught_up=caught_up)
    newest = monitor.newest_dead_letters
    assert newest is not None

    async def is_kept() -> bool:
        seen = await newest()
        await monitor.count_new_dead_letters()
        return seen == await newest()

    assert await is_kept()
    broker.letters = Position(0, 3)
    assert not await is_kept()
    is_stored = True
    assert await is_kept()
    broker.letters, found[0] = Position(3, 4), -1
    assert not await is_kept()
    found[0] = 4
    assert await is_kept()


async def test_a_store_that_hangs_does_not_hold_up_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a while, and asked once, however many scrapes come."""
    monkeypatch.setattr("collector.app.health_monitor._COUNTED_WAIT_S", 0.01)
    broker, hangs, asked = Broker(), threading.Event(), [0]

    def count() -> int:
        asked[0] += 1
        hangs.wait(10)
        return 1

    async def caught_up(_timeout_s: float, _topic: str) -> bool:
        return False

    monitor = HealthMonitor(Metrics(), broker, dead_letters=count, writer_state=lambda: "ok", caught_up=caught_up)
    broker.letters = Position(0, 5)
    try:
        async with asyncio.timeout(5):
            for _ in range(3):
                await monitor.count_new_dead_letters()
        assert 1 == asked[0]
    finally:
        hangs.set()


class LocalLog:
    """As it is set."""

    is_full = False
    has_lost_files = False
    is_cut = False
    bytes_used = 77
    bytes_max = 100
    found = (0, 0)

    def damages(self) -> tuple[int, int]:
        return self.found


async def test_a_full_log_is_reported() -> None:
    metrics, local_log = Metrics(), LocalLog()
    monitor = HealthMonitor(metrics, Broker(), local_log=local_log, writer_state=lambda: "ok")
    async with running(monitor):
        assert states(monitor) == ("ok", "ok", "ok")
        local_log.is_full = True
        assert states(monitor) == ("ok", "full", "ok")
        await eventually(lambda: counted(metrics, "infrasage_log_bytes") == 77)
        assert 100 == counted(metrics, "infrasage_log_limit_bytes")


async def test_damage_is_shown_until_it_is_confirmed() -> None:
    """It is shown also if it lost no message."""
    metrics, local_log = Metrics(), LocalLog()
    monitor = HealthMonitor(metrics, Broker(), local_log=local_log, writer_state=lambda: "ok")
    async with running(monitor):
        for found, shown in (((2, 40), "damaged"), ((1, 0), "damaged"), ((0, 0), "ok")):
            local_log.found = found
            await eventually(lambda shown=shown: states(monitor) == ("ok", "ok", shown))
            await eventually(lambda found=found: counted(metrics, "infrasage_log_damages") == found[0])
            assert counted(metrics, "infrasage_log_lost_messages") == found[1]


async def test_damaged_parts_are_shown_until_they_are_removed() -> None:
    """They are degraded, and counted. A count that fails leaves the last one."""
    metrics = Metrics()
    answers: list[int | StoreUnavailable] = [2, StoreUnavailable("busy")]

    def count() -> int:
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    monitor = HealthMonitor(metrics, Broker(), writer_state=lambda: "ok", damaged_parts=count)
    async with running(monitor):
        await eventually(lambda: len(answers) == 1)
        await eventually(lambda: states(monitor)[0] == "damaged parts")
        assert counted(metrics, "infrasage_store_damaged_parts") == 2
        answers[:] = [0]
        await eventually(lambda: states(monitor)[0] == "ok")
        await eventually(lambda: counted(metrics, "infrasage_store_damaged_parts") == 0)


async def test_a_broker_that_takes_nothing_is_unavailable_between_attempts() -> None:
    """It answers, and has acknowledged nothing since appends failed."""
    broker = Broker()
    monitor = HealthMonitor(Metrics(), broker)
    async with running(monitor):
        assert "ok" == states(monitor)[1]
        broker.unproven = "not acknowledged within 5 s"
        assert "unavailable" == states(monitor)[1]
        broker.unproven = None
        assert "ok" == states(monitor)[1]


async def test_a_low_disk_is_shown() -> None:
    """It is a reason of its own, with the free space, which is read also if nothing is appended."""
    metrics, local_log = Metrics(), LocalLog()
    space = [Space(100, 1000)]
    disk = Disk(Path("/data"), 50, 0, 1 << 40, measured=lambda _: space[0])
    monitor = HealthMonitor(metrics, Broker(), local_log=local_log, disk=disk, writer_state=lambda: "ok")
    async with running(monitor):
        await eventually(lambda: states(monitor) == ("ok", "disk full", "ok"))
        await eventually(lambda: counted(metrics, "infrasage_up", part="broker") == 0)
        assert counted(metrics, "infrasage_disk_free_bytes", directory="data_dir") == 100
        assert counted(metrics, "infrasage_disk_reserve_bytes", directory="data_dir") == 500
        space[0] = Space(600, 1000)
        await eventually(lambda: states(monitor) == ("ok", "ok", "ok"))


def test_health_says_what_there_is_in_place_of_kafka_and_clickhouse() -> None:
    """The names of the API's fields stay; what they are about is in fields of their own."""

    def parts(**given: Any) -> tuple[str, str]:
        health = HealthMonitor(Metrics(), Broker(), **given).health()
        return health.broker, health.store

    assert (KAFKA, NOT_USED) == parts()
    assert (EMBEDDED_LOG, EMBEDDED_ENGINE) == parts(local_log=LocalLog(), writer_state=lambda: "ok")
    assert (KAFKA, CLICKHOUSE) == parts(ping_store=lambda: None, writer_state=lambda: "ok")


class Newest:
    """A store that says when its newest items were, or does not answer; it counts the questions, and waits for `gate`."""

    def __init__(self) -> None:
        self.answer: dict[str, float] | StoreUnavailable = {"logs": 100.0, "traces": 50.0}
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> dict[str, float]:
        self.asked += 1
        assert self.gate.wait(30)
        if isinstance(self.answer, StoreUnavailable):
            raise self.answer
        return self.answer


def newest_at(metrics: Metrics, signal: str) -> float | None:
    """When the item was whose age the next scrape has; None: there is no age."""
    series = f'infrasage_store_newest_item_age_seconds{{signal="{signal}"}}'
    if series not in metrics.expose("")[0].decode():
        return None
    return time.time() - counted(metrics, "infrasage_store_newest_item_age_seconds", signal=signal)


async def test_each_scrape_has_the_age_of_what_is_the_newest_then() -> None:
    """What was stored since the scrape before is in the next one; a store that does not answer leaves the last time known, not
    the last age."""
    metrics, store, now = Metrics(), Newest(), [100.0]
    monitor = HealthMonitor(metrics, Broker(), newest_items=store, clock=lambda: now[0])
    await monitor.update_for_scrape()
    assert newest_at(metrics, "logs") == pytest.approx(100, abs=5)
    assert newest_at(metrics, "traces") == pytest.approx(50, abs=5)
    assert newest_at(metrics, "metrics") is None, "of a signal without items there is nothing to show"
    now[0] += 1
    store.answer = {"logs": 1000.0}
    await monitor.update_for_scrape()
    assert newest_at(metrics, "logs") == pytest.approx(1000, abs=5)
    now[0] += 1
    store.answer = StoreUnavailable("away")
    await monitor.update_for_scrape()
    assert newest_at(metrics, "logs") == pytest.approx(1000, abs=5)
    assert store.asked == 3


async def test_many_scrapes_ask_for_the_newest_items_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question serves a second, and all who come while the store works on it; none waits without end."""
    monkeypatch.setattr("collector.app.health_monitor._LOOKED_WAIT_S", 0.01)
    metrics, store, now = Metrics(), Newest(), [100.0]
    monitor = HealthMonitor(metrics, Broker(), newest_items=store, clock=lambda: now[0])
    store.gate.clear()
    await asyncio.gather(monitor.update_for_scrape(), monitor.update_for_scrape())
    now[0] += 5
    await monitor.update_for_scrape()
    assert (store.asked, newest_at(metrics, "logs")) == (1, None)
    store.gate.set()
    await eventually(lambda: newest_at(metrics, "logs") is not None)
    now[0] += 0.5
    for _ in range(2):
        await asyncio.gather(*(monitor.update_for_scrape() for _ in range(20)))
        await eventually(lambda: store.asked == 2)


async def test_the_lag_is_shown_in_seconds_too() -> None:
    """It is shown from the first look on, for the partitions that are ours, and only while it is known."""
    metrics, broker, now = Metrics(), Broker(), [100.0]
    name = "infrasage_log_lag_seconds"
    async with running(HealthMonitor(metrics, broker, owns=lambda _: None, writer_state=lambda: "ok", clock=lambda: now[0])):
        await eventually(lambda: f'{name}{{partition="0"' in metrics.expose("")[0].decode())
        now[0] = 107.0
        await eventually(lambda: counted(metrics, name, topic=LOGS_TOPIC, partition="0") == 7)
        broker.at = {FIRST: Position(5, 5)}
        await eventually(lambda: counted(metrics, name) == 0)
        broker.failure = "away"
        await eventually(lambda: f"{name}{{" not in metrics.expose("")[0].decode())
