"""generate: an interrupt while it begins. tests/system/test_generate.py has the command."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from collector.app import generate


@pytest.fixture(autouse=True)
def sigint() -> Iterator[None]:
    """SIGINT is heeded, though tests that run in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Iterator[generate.LoadPlan]:
    """For a server that never answers. The first item is due at once, and the others are not within a test."""
    monkeypatch.setattr(generate, "ANSWER_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield generate.LoadPlan("logs", 0.001, 1, 1, 3600, 4, f"http://127.0.0.1:{server.getsockname()[1]}", None)


def sleep_as(sleep: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace time.sleep in the command alone."""
    instead = SimpleNamespace(sleep=sleep, monotonic=time.monotonic, time_ns=time.time_ns)
    monkeypatch.setattr("collector.app.generate.time", instead)


def test_ctrl_c_while_threads_start(plan: generate.LoadPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads start, and end. An exception in between could leave a lock locked, and a thread would wait for it."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        if not started:
            signal.raise_signal(signal.SIGINT)
        start(thread)
        started.append(thread)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    sent = generate.send(plan)
    assert 4 == len(started)
    assert not any(thread.is_alive() for thread in started)
    assert 0 == sent.acknowledged
    assert sent.in_doubt <= 1
    assert before is signal.getsignal(signal.SIGINT)


def test_a_second_ctrl_c_waits_for_no_answer(plan: generate.LoadPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep_as(lambda _s: signal.raise_signal(signal.SIGINT), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        generate.send(plan)


def test_ctrl_c_stays_ignored(plan: generate.LoadPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, as in the background of a shell."""
    looks = iter(range(3))

    def sleep(_s: float) -> None:
        if next(looks, None) is None:
            raise RuntimeError("it goes on")
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sleep_as(sleep, monkeypatch)
    with pytest.raises(RuntimeError, match="it goes on"):
        generate.send(plan)
    assert signal.SIG_IGN is signal.getsignal(signal.SIGINT)
