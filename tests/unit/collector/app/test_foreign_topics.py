"""The topics that others write, as an application gets them from the settings."""

from typing import Any

import pytest
from typer.testing import CliRunner

from adapters.record import TRACES
from collector.app import supervisor
from collector.app.foreign_topics import foreign_names, foreign_topics_of, stored_topics
from collector.broker.contract import TOPICS, Message
from collector.cli.main import app
from collector.config.settings import Settings
from collector.telemetry.metrics import Metrics


class Producer:
    """Keeps nothing."""

    async def append(self, messages: list[Message]) -> None: ...


def settings(**kafka: str) -> Settings:
    return Settings.model_validate({"kafka": {"bootstrap": "k:9092", **kafka}})


def test_without_any_there_is_nothing_to_adapt() -> None:
    assert foreign_topics_of(Settings(), Producer(), Metrics()) is None  # type: ignore[arg-type]
    assert list(TOPICS) == stored_topics(Settings())


def test_each_has_its_signal_and_tenant() -> None:
    """If it has no tenant of its own, it is that of records without a key."""
    given = settings(topics="otlp_spans=otlp_proto,a=otlp_json:traces:acme")
    topics = foreign_topics_of(given, Producer(), Metrics())  # type: ignore[arg-type]
    assert topics is not None
    assert [("otlp_proto", TRACES, "anonymous"), ("otlp_json", TRACES, "acme")] == [
        tuple(topics._topics[name])[1:] for name in ("otlp_spans", "a")
    ]
    assert [True, False] == [topics.reads(name) for name in ("a", "infrasage.logs")]
    assert ["otlp_spans", "a"] == foreign_names(given)
    assert [*TOPICS, "otlp_spans", "a"] == stored_topics(given)


def test_the_option_of_the_writer_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run(settings: Settings, _print_line: object) -> int:
        given.append(settings.kafka.topics)
        return 0

    monkeypatch.setattr(supervisor, "run_writer", run)
    servers = ["--kafka", "k:9092", "--clickhouse", "http://c:8123"]
    options = ["--topic", "otlp_logs=otlp_proto", "--topic", "a=otlp_json:traces:acme"]
    done = CliRunner().invoke(app, ["writer", *servers, *options], env={})
    assert (0, ["otlp_logs=otlp_proto,a=otlp_json:traces:acme"]) == (done.exit_code, given), done.output
