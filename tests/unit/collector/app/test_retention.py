"""For how long rows are kept: by the settings, and by the plans of tenants while keys are made and revoked."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_LOGS, PAYLOAD_FORM_OTLP_METRICS, PAYLOAD_FORM_OTLP_TRACES
from support.waiting import eventually

from adapters.record import LOGS
from collector.app.retention import PlanRetention, keys_file_days, limits_of, shortest_retention
from collector.app.storage import requested_tables
from collector.app.tenancy import open_tenancy
from collector.config.settings import Settings
from collector.store.contract import StoreUnavailable
from collector.tenancy import keys
from collector.tenancy.keys import KeysUnusable
from collector.tenancy.scopes import Scope


class File:
    """Days of tenants, and what the store was asked."""

    def __init__(self) -> None:
        self.days: dict[str, int] | None = {"acme": 7}
        self.is_away = False
        self.applied = 0

    def by_tenant(self) -> dict[str, int]:
        if self.days is None:
            raise KeysUnusable("broken")
        return self.days

    def apply_schema(self) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.applied += 1


async def test_tables_follow_the_keys() -> None:
    """The first look finds what came since the start; a later one does something only where days have changed."""
    file = File()
    made = PlanRetention(file.by_tenant, file.apply_schema)
    applied = []
    for days in ({"acme": 7}, {"acme": 7}, {"acme": 7, "beta": 30}, {"acme": 7, "beta": 30}, {}):
        file.days = days
        await made.update()
        applied.append(file.applied)
    assert applied == [1, 1, 2, 2, 3]


async def test_what_failed_is_tried_again() -> None:
    """Logged once, while it is the same; and the next look that can brings the tables up to date."""
    file = File()
    made = PlanRetention(file.by_tenant, file.apply_schema)
    file.is_away = True
    with structlog.testing.capture_logs() as logs:
        await made.update()
        await made.update()
        file.days = None
        await made.update()
    assert [entry["error"] for entry in logs] == ["away", "broken"]
    file.days, file.is_away = {"acme": 8}, False
    await made.update()
    assert file.applied == 1


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_receivers_know_what_the_store_keeps(command: str) -> None:
    """They know it by the settings alone: a gateway has no store to ask."""
    servers = (
        {"kafka": {"bootstrap": "127.0.0.1:9"}, "clickhouse": {"url": "http://127.0.0.1:9"}} if command == "gateway" else {}
    )
    store = {"retention_days": 9, "logs_retention_days": 2, "tenant_retention_days": "acme=1,beta=90"}
    limits = limits_of(Settings.model_validate({"store": store, "validation": {"past_max_s": 30 * 86_400}, **servers}), None)
    forms = (PAYLOAD_FORM_OTLP_METRICS, PAYLOAD_FORM_OTLP_LOGS, PAYLOAD_FORM_OTLP_TRACES)
    days = {tenant: [limits.window_of(form, tenant).item.days for form in forms] for tenant in ("any", "acme", "beta")}
    assert {"any": [9, 2, 9], "acme": [1, 1, 1], "beta": [0, 0, 0]} == days


def test_plans_decide_how_long_rows_are_kept(tmp_path: Path) -> None:
    """The tables follow the keys file, and days of single tenants in the settings come before those of plans."""
    now = datetime.now(UTC)
    for tenant, plan in (("acme", "Gold"), ("beta", "Gold"), ("free", "Free")):
        keys.create(tmp_path / "keys.json", tenant=tenant, scope=Scope.INGEST, plan=plan, now=now)
    store = {"retention_days": 9, "tenant_retention_days": "beta=1"}
    settings = Settings.model_validate({"data_dir": tmp_path, "store": store, "plans": {"Gold": {"retention_days": 90}}})
    assert requested_tables(settings).as_of_now().retention.tenants == {"acme": 90, "beta": 1}
    assert shortest_retention(settings) == 1
    days = keys_file_days(settings)
    assert days is not None
    kept = limits_of(settings, days.of).kept_days
    assert {tenant: kept.of(tenant, LOGS) for tenant in ("acme", "beta", "free", "any")} == {
        "acme": 90,
        "beta": 1,
        "free": 9,
        "any": 9,
    }
    plain = settings.model_copy(update={"plans": {}})
    assert keys_file_days(plain) is None
    assert requested_tables(plain).days_of_plans is None


async def test_receivers_follow_the_plans_of_keys(tmp_path: Path) -> None:
    """A key that is made while they run counts within a look at the file."""
    plans = {"Short": {"retention_days": 2}, "Long": {"retention_days": 20}}
    settings = Settings.model_validate({"data_dir": tmp_path, "plans": plans, "tenants": {"keys_reload_s": 0.1}})
    now = datetime.now(UTC)
    keys.create(tmp_path / "keys.json", tenant="acme", scope=Scope.INGEST, plan="Short", now=now)
    async with open_tenancy(settings, processes=1) as tenancy:
        assert tenancy.kept_days is not None
        of_tenant = tenancy.kept_days
        assert (of_tenant("acme"), of_tenant("anonymous")) == (2, None)
        keys.create(tmp_path / "keys.json", tenant="acme", scope=Scope.INGEST, plan="Long", now=now)
        await eventually(lambda: of_tenant("acme") == 20)
