"""A Kafka whose disks were set back to an earlier state, with all of its metadata: its ids, leader epochs and offsets repeat,
and what comes next are other messages. Against a real broker."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes.kafka import Kafka, libraries
from support.rewritten_logs import World


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    libraries()
    broker = Kafka(tmp_path / "kafka", is_killed=False)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.mark.parametrize("later", [1, 3, 5], ids=["fewer than before", "as many", "more"])
async def test_a_kafka_that_was_set_back_loses_nothing(kafka: Kafka, tmp_path: Path, later: int) -> None:
    world = World(kafka.bootstrap)
    await world.append("before-0", "before-1")
    await world.drain()
    kafka.end()
    shutil.copytree(kafka.directory / "data", tmp_path / "copy")
    kafka.start()
    await world.append(*(f"former-{n}" for n in range(3)))
    await world.drain()
    kafka.end()
    shutil.rmtree(kafka.directory / "data")
    (tmp_path / "copy").rename(kafka.directory / "data")
    kafka.start()
    await world.append(*(f"later-{n}" for n in range(later)))
    await world.drain()
