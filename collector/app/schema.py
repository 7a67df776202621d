"""The commands `schema`: the store's tables."""

import contextlib

from collector.app.data_dir import is_embedded, locked_data_dir
from collector.app.storage import open_store
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import Locked
from collector.store.contract import StoreError
from collector.store.migrations import schema_sql
from collector.telemetry import logs


def text(settings: Settings) -> str:
    """The statements of every migration, in order."""
    return schema_sql(settings.clickhouse.cluster)


def apply(settings: Settings) -> str:
    """Bring the store's tables up to date, and tell what was done. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    try:
        with locked_data_dir(settings, wanted=is_embedded(settings)), contextlib.closing(open_store(settings)) as store:
            applied = store.apply_schema()
    except Locked as locked:
        raise CannotRun(f"{locked}, which brought its tables up to date when it started") from None
    except StoreError as error:
        raise CannotRun(str(error)) from error
    return f"applied {', '.join(applied)}" if applied else "the tables are up to date"
