"""The commands `audit --found` and `audit --confirm`: findings of scheduled audits, and an operator's confirmation."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from collector.api.query_client import NotRunning, ask, confirm_audit
from collector.app.data_dir import check_there, has_data_dir, offline_or_running
from collector.app.storage import open_server, open_storage
from collector.audit.findings import ALL_FINDINGS, AuditFinding, AuditFindings
from collector.broker.contract import BrokerError
from collector.config.settings import Settings
from collector.query.reader import ROWS_FORMAT, rows_of
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError
from collector.telemetry import logs
from collector.telemetry.metrics import Metrics

Found = list[AuditFinding]


def audit_findings(settings: Settings) -> Found:
    """Return the newest thousand findings of scheduled audits, the newest first. Works with and without a running collector.
    Raises CannotRun."""
    return _done(settings, AuditFindings.all, lambda: _all_of_running(settings))


def confirm_findings(settings: Settings, actor: str) -> Found:
    """Confirm the open findings, and return them. Raises CannotRun."""
    confirm = partial(AuditFindings.confirm_all, actor=actor)
    return _done(settings, confirm, lambda: confirm_audit(settings.data_dir, actor))


def _done(settings: Settings, do: Callable[[AuditFindings], Found], running: Callable[[], Found]) -> Found:
    """Return the result of `do` on the store, or of `running` if a collector runs. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    try:
        if not has_data_dir(settings):
            with contextlib.closing(open_server(settings)) as store:
                return do(AuditFindings(store))
        with contextlib.suppress(NotRunning):
            return running()
        return offline_or_running(settings, lambda: asyncio.run(_offline(settings, do)), running)
    except (StoreError, BrokerError) as error:
        raise CannotRun(str(error)) from error


async def _offline(settings: Settings, do: Callable[[AuditFindings], Found]) -> Found:
    check_there(settings.data_dir, str(settings.data_dir))
    async with open_storage(settings, Metrics(), "audit") as storage:
        return await asyncio.to_thread(do, AuditFindings(storage.store))


def _all_of_running(settings: Settings) -> Found:
    """Ask a running collector, and return its findings. Raises NotRunning, QueryFailed."""
    answer = ask(settings.data_dir, ALL_FINDINGS, ROWS_FORMAT, now=True)
    return [AuditFinding.of(row) for row in rows_of(answer.body)]
