"""What a command sets up for its whole process is left out: the other tests of this process capture log lines."""

import pytest

from collector.telemetry import logs


@pytest.fixture(autouse=True)
def logging_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "set_up", lambda _settings: None)
