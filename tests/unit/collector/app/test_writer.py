"""The writer of an application: what it is given of the settings."""

from pathlib import Path

import pytest
from support.fakes.brokers import LIMITS, TOPICS

from collector.app.storage import Broker
from collector.app.writer import _is_disk_low
from collector.broker.local_log import LocalLog
from collector.config.settings import Settings
from collector.runtime.disk import Space

GIB = 1 << 30


class Kafka:
    """Nothing is asked of it."""


async def test_inserts_into_an_embedded_store_are_looked_up_on_a_low_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Kafka as with the local log; not with a server, whose disk is not ours."""
    free = 100 * GIB
    kafka: Broker = Kafka()  # type: ignore[assignment]
    monkeypatch.setattr("collector.app.storage.measure", lambda _: Space(free, 100 * GIB))
    given = Settings(data_dir=tmp_path, kafka={"bootstrap": "127.0.0.1:9092"})  # type: ignore[arg-type]
    is_low = _is_disk_low(given, kafka)
    assert not is_low()
    free = GIB
    assert is_low()
    free = 100 * GIB
    assert not is_low()
    free = GIB
    served = Settings(kafka={"bootstrap": "127.0.0.1:9092"}, clickhouse={"url": "http://127.0.0.1:1"})  # type: ignore[arg-type]
    assert not _is_disk_low(served, kafka)()
    async with await LocalLog.open(tmp_path / "log", LIMITS, TOPICS) as log:
        is_low = _is_disk_low(Settings(data_dir=tmp_path), log)
        log.disk.is_low = True
        assert is_low()
