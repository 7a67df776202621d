"""The writer of an application gets its values from the settings."""

from pathlib import Path

import pytest

from collector.app.writer import _is_disk_low
from collector.config.settings import Settings
from collector.runtime.disk import Space

GIB = 1 << 30


def test_inserts_into_an_embedded_store_are_looked_up_on_a_low_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is that of the data directory, or of the store if that has a place of its own. It is the same with Kafka and
    with the local log. A server is excepted, since its disk is not ours."""
    free = {"data": 100 * GIB, "store": 100 * GIB}
    monkeypatch.setattr("collector.app.storage.measure", lambda place: Space(free[place.name], 100 * GIB))
    kafka, served = {"bootstrap": "127.0.0.1:9092"}, {"url": "http://127.0.0.1:1"}
    own = [_is_disk_low(Settings(data_dir=Path("data"), **given)) for given in ({}, {"kafka": kafka})]  # type: ignore[arg-type]
    other = _is_disk_low(Settings(data_dir=Path("data"), kafka=kafka, clickhouse=served))  # type: ignore[arg-type]
    for place in free:
        assert [False, False, False] == [is_low() for is_low in (*own, other)]
        free[place] = GIB
        assert [True, True, False] == [is_low() for is_low in (*own, other)]
        free[place] = 100 * GIB
