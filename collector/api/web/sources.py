"""The sources of the data that web pages show."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from collector.api.health import Health
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.telemetry.aggregate import Snapshot


class SettingShown(NamedTuple):
    """A setting in force, as the page of settings shows it."""

    key: str
    value: str
    is_default: bool
    description: str


class Sources(NamedTuple):
    """The sources of the data that web pages show. `letters` and `replayer` are None if the process has no store.

    `snapshot` returns the metrics as /metrics shows them. `gather` returns those of all processes, with every tenant under its
    own name. `plans` returns the names of the plans, by tenant. `settings` returns the settings in force.
    """

    version: str
    health: Callable[[], Health]
    uptime_s: Callable[[], float]
    snapshot: Callable[[], Awaitable[Snapshot]]
    gather: Callable[[], Awaitable[Snapshot]]
    plans: Callable[[], Mapping[str, str]]
    settings: Callable[[], Sequence[SettingShown]]
    letters: DeadLetterReports | None = None
    replayer: DeadLetterReplayer | None = None
    form_bytes_max: int = 4 * 1024 * 1024
    body_timeout_s: float = 30.0
