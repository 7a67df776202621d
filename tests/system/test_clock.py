"""The machine's clock is set, forward and back, by hours and by a century, while the collector runs and between two starts."""

import itertools
import time
from pathlib import Path

import httpx
import pytest
from support.processes.machine_clock import MachineClock
from support.processes.program import MakeProgram
from support.waiting import until

HOUR_S = 3600
YEAR_1970_S, YEAR_2100_S = 1_000, 4_102_444_800


def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, make_program: MakeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders have the machine's clock, or one that does not jump. Each request is answered at once; each item that was
    acknowledged is stored, once, and each rejected one a dead letter; and no sender is limited by it."""
    clock = MachineClock(tmp_path)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    program = make_program(tenants__anonymous_plan="Pro")
    program.start()
    numbers = itertools.count()
    accepted: list[int] = []
    rejected: list[int] = []

    def send(moment: float) -> None:
        number = next(numbers)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        began = time.monotonic()
        answer = httpx.post(
            f"{program.http}/api/v1/telemetry",
            json={"service_id": "clock", "type": "log", "body": f"{number}", "timestamp": stamp},
            timeout=20,
        )
        assert time.monotonic() - began < 10
        assert answer.status_code in (200, 400, 422), answer.text
        if answer.status_code == 200:
            accepted.append(number)
        elif clock.now() > 1e9:
            rejected.append(number)  # what is rejected in 1970 is older than any retention of dead letters

    def send_all() -> None:
        for _ in range(3):
            send(clock.now())
            send(time.time())

    try:
        for jump_s in (0, -3 * HOUR_S, 5 * HOUR_S, -26 * HOUR_S):
            clock.set(jump_s)
            send_all()
        for year_s in (YEAR_1970_S, YEAR_2100_S):
            clock.set_to(year_s)
            send_all()
        clock.set(0)
        send_all()
        assert (200, "ok") == ((health := httpx.get(f"{program.http}/healthz")).status_code, health.json()["status"])
        # Between two starts: what the log holds is stored under another date than it was received.
        for year_s in (YEAR_2100_S, YEAR_1970_S):
            program.kill()
            clock.set_to(year_s)
            program.start()
            send_all()
        dead_letters_sql = "SELECT count() FROM dead_letters WHERE Reason LIKE 'timestamp%'"
        program.wait_for("SELECT uniqExact(Body) FROM otel_logs", len(accepted))
        program.wait_for(dead_letters_sql, len(rejected))
        clock.set(0)
        # It looks at the clock every few seconds: jumps that come faster are seen as one, or as none where they cancel out.
        until(lambda: "the machine's clock was set" in program.log())
        stored = program.query("SELECT toUInt64(Body) AS number, count() AS times FROM otel_logs GROUP BY number")
        assert {1} == {int(row["times"]) for row in stored}
        assert set(accepted) == {int(row["number"]) for row in stored}
        # The clock of a sender that does not jump is in the future, or too long ago, for a machine that did.
        assert rejected
        assert len(rejected) == int(program.value(dead_letters_sql))
    finally:
        clock.set(0)
