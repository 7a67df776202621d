"""The writer with the real embedded engine, in processes that are killed."""

import random
from pathlib import Path

import pytest
from support.processes import command, run, run_and_kill
from support.write_to_engine import BAD_EVERY, POINTS

pytestmark = pytest.mark.timeout(110)


def test_kill_9_stores_everything_exactly_once(tmp_path: Path) -> None:
    """Killed while it appends, stores, and searches for bad records: in the end every acknowledged point is there, no point is
    there twice, and every bad record is a dead letter."""
    lot = random.Random(11)
    acknowledged: list[int] = []
    first = 0
    for _ in range(4):
        lines = lot.randrange(20, 160)
        printed = run_and_kill(command("support.write_to_engine", tmp_path, first), lines)
        assert lines <= len(printed)
        acknowledged += map(int, printed)
        # The one after the last that was printed may have been kept as well: it is not sent again.
        first = acknowledged[-1] + 2
    *rows, dead_letters = run(command("support.write_to_engine", tmp_path, "finish")).splitlines()
    stored = {number: (count, distinct) for number, count, distinct in (map(int, row.split()) for row in rows)}
    assert set(acknowledged) <= set(stored) <= set(range(first))
    assert dict.fromkeys(stored, (POINTS, POINTS)) == stored
    assert len([number for number in stored if number % BAD_EVERY == 0]) <= int(dead_letters)
