"""The commands log: show damage and losses of the local log, and confirm them.

Invariants:
1. Nothing is deleted: a confirmation only ends the alarm (test_an_operator_confirms).
"""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collector.cli.common import Config, DataDir, failures, load_settings, print_text, table

if TYPE_CHECKING:
    from collector.app.log_incidents import Incident

app = typer.Typer(help="Show and confirm damage of the local log.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("show")
def show(as_json: AsJson = False, data_dir: DataDir = None, config: Config = None) -> None:
    """List damages of the local log, and lost messages."""
    settings = load_settings(config, {"data_dir": data_dir}).settings
    from collector.app import log_incidents  # noqa: PLC0415  # other commands do not need it

    with failures():
        found = log_incidents.incidents(settings)
    print_text(json.dumps([_document(incident) for incident in found], indent=2) if as_json else _shown(found))


@app.command("confirm")
def confirm(data_dir: DataDir = None, config: Config = None) -> None:
    """Confirm all damage, which ends the alarm.

    /healthz and infrasage_log_damages then no longer report the damage. Nothing is deleted.
    """
    settings = load_settings(config, {"data_dir": data_dir}).settings
    from collector.app import log_incidents  # noqa: PLC0415  # other commands do not need it

    with failures():
        confirmed = log_incidents.confirm_all(settings)
    if not confirmed:
        print_text("nothing to confirm")
    for incident in confirmed:
        print_text(f"confirmed {incident.folder}: {incident.messages:,} messages lost")


def _shown(incidents: "list[Incident]") -> str:
    """Return incidents as text, with one line for each damage."""
    if not incidents:
        return "nothing was damaged"
    rows: list[tuple[str, ...]] = [("FOLDER", "CONFIRMED", "TOPIC", "OFFSETS", "MESSAGES", "REASON")]
    for incident in incidents:
        name, confirmed = incident.folder.name, "yes" if incident.is_confirmed else "no"
        if not incident.damages:
            rows.append((name, confirmed, "-", "-", "0", "files were damaged, all messages were recovered"))
        for it in incident.damages:
            places = (it.topic, f"{it.start} to {it.end - 1}", f"{it.messages:,}") if it.topic else ("-", "-", "unknown")
            rows.append((name, confirmed, *places, it.reason))
    return table(rows)


def _document(incident: "Incident") -> dict[str, Any]:
    """Return an incident for JSON."""
    return {
        "folder": str(incident.folder),
        "confirmed": incident.is_confirmed,
        "messages": incident.messages,
        "damages": [
            {
                "topic": it.topic or None,
                "first_offset": it.start if it.topic else None,
                "last_offset": it.end - 1 if it.topic else None,
                "messages": it.messages if it.topic else None,
                "reason": it.reason,
                "log": it.log or None,
                "requests": list(it.requests),
            }
            for it in incident.damages
        ],
    }
