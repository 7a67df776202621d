"""kill -9, at any moment, under load: nothing acknowledged is lost, nothing is stored twice."""

import random
import signal
import sys
import time

from support.processes import crashing
from support.processes.program import MakeProgram
from support.senders import COUNTS_SQL, Senders

KILLS_UNDER_LOAD = 2
KILLS_WHILE_STARTING = 1


def test_kill_under_load(make_program: MakeProgram) -> None:
    """Killed at random, while it serves and while it starts, again and again: each acknowledged record is stored once."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    # Small ranges and no waiting: the more often an intent is open while the process dies, the more is tried.
    program = make_program(writer__linger_ms=5, writer__bytes_max=20_000, query__wait_s=30)
    program.start()
    with Senders(program.http_port) as senders:
        for _ in range(KILLS_UNDER_LOAD):
            time.sleep(chance.uniform(0.05, 1.2))
            program.kill()
            program.start()
        for _ in range(KILLS_WHILE_STARTING):
            program.kill()
            program.launch()
            time.sleep(chance.uniform(0.2, 2.5))
            program.kill()
            program.start()
        time.sleep(0.3)
        program.kill()
    assert len(senders.acknowledged) > 200, "too few to show anything"
    assert senders.in_doubt, "no request was broken off: nothing was tried"
    # No collector runs now: the query command itself brings what is in the log into the store.
    senders.check({int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)})


def test_killed_at_each_step(make_program: MakeProgram) -> None:
    """Dead right after an append, an intent, an insert or a commit: every acknowledged record is stored exactly once."""
    program = make_program(writer__linger_ms=5, writer__bytes_max=20_000)
    program.gets_tables = False  # nothing is there at its first start, as at a user's
    program.start()
    with Senders(program.http_port) as senders:
        program.kill()
        for step in crashing.STEPS:
            program.command = [sys.executable, crashing.__file__, step, "50" if step == "durable" else "3"]
            program.launch()
            assert program.wait() == -signal.SIGKILL, f"it did not come to {step}"
    senders.check({int(row["number"]): int(row["times"]) for row in program.query(COUNTS_SQL)})


def test_a_stale_socket_and_lock_do_no_harm(make_program: MakeProgram) -> None:
    """What a killed process leaves lying about does not keep the next one, nor a query, from working."""
    program = make_program()
    program.start()
    program.kill()
    assert (program.data_dir / "query.sock").is_socket()
    assert program.value("SELECT 1") == 1
    program.start()
    assert program.value("SELECT 2") == 2
    assert program.stop() == 0
