"""Where web pages get what they show."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from collector.api.health import Health
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.telemetry.aggregate import Snapshot


class SettingShown(NamedTuple):
    """A setting in force."""

    key: str
    value: str
    is_default: bool
    description: str


class Sources(NamedTuple):
    """Where pages get what they show. What is None, this process has no store for.

    `snapshot`: the metrics as /metrics shows them. `gather`: those of all processes, with every tenant under its name.
    `plans`: the names of tenants' plans. `settings`: those in force.
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
