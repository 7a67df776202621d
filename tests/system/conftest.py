"""The real command, on free ports of the loopback interface, with its data in a temporary directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes.kafka import Kafka
from support.processes.program import MakeProgram, Program


@pytest.fixture
def make_program(tmp_path: Path) -> Iterator[MakeProgram]:
    """Programs on `tmp_path/data`, with settings by variable: make_program(local_log__bytes_max=1000). Not started."""
    made: list[Program] = []

    def make(**settings: object) -> Program:
        made.append(Program(tmp_path / "data", **settings))
        return made[-1]

    yield make
    for program in made:
        program.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One running program for a whole module: its tests tell their rows apart by service."""
    running = Program(tmp_path_factory.mktemp("serve") / "data")
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker of its own for each test, since tests kill it, and the topics have fixed names."""
    made = Kafka(tmp_path / "kafka")
    made.start()
    yield made
    made.close()
