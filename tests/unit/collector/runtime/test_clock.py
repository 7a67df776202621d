"""A clock that was set is reported once; one that is slewed, or a machine that slept, is not."""

import structlog

from collector.runtime.clock import ClockWatch


def test_a_clock_that_was_set_is_reported_once() -> None:
    now, monotonic = [1_000_000.0], [50.0]
    watch = ClockWatch(lambda: now[0], lambda: monotonic[0])
    with structlog.testing.capture_logs() as logs:
        for step_s, jump_s in ((3, 0), (3, 0.5), (3, 7200), (3, 0), (3, -1e9), (600, 59), (3, -60)):
            monotonic[0] += step_s
            now[0] += step_s + jump_s
            watch.check()
    assert [7200, -1_000_000_000, -60] == [line["seconds"] for line in logs]
    assert {"warning"} == {line["log_level"] for line in logs}
