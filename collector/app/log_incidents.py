"""The commands `log`: show the incidents of the local log, and confirm them. Both work with and without a running collector."""

from collections.abc import Sequence

from collector.app.data_dir import check_there
from collector.broker.local_log import Incident, confirm, read_incidents
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun

__all__ = ["Incident", "confirm_all", "incidents", "unconfirmed_messages"]


def incidents(settings: Settings) -> list[Incident]:
    """Return all incidents, in the order in which they were found. Raises CannotRun."""
    check_there(settings.data_dir, f"data directory {settings.data_dir}")
    try:
        return read_incidents(settings.data_dir)
    except OSError as error:
        raise CannotRun(f"cannot read what was damaged in {settings.data_dir}: {error}") from error


def unconfirmed_messages(settings: Settings) -> int:
    """Return how many acknowledged messages the log reports as lost, without confirmed incidents. Raises CannotRun."""
    return sum(incident.messages for incident in incidents(settings) if not incident.is_confirmed)


def confirm_all(settings: Settings) -> Sequence[Incident]:
    """Confirm the unconfirmed incidents, and return them. Raises CannotRun."""
    unconfirmed = [incident for incident in incidents(settings) if not incident.is_confirmed]
    try:
        confirm(unconfirmed)
    except OSError as error:
        raise CannotRun(f"cannot confirm what was damaged in {settings.data_dir}: {error}") from error
    return unconfirmed
