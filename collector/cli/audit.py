"""The command audit: compare what was accepted with what is stored.

Invariants:
1. The exit status is 0 if every difference is zero, over all of the time that the answer names. Messages that wait to be stored
   are in the answer, and are no difference. test_messages_that_only_wait_are_no_difference
2. The exit status is 1 if there is a difference, or if nothing could be judged. test_faults_are_named_and_counted
3. The exit status is 2 if the options are wrong. test_asked_wrongly
"""

import dataclasses
import getpass
import json
import time
from typing import Annotated, Any, Final

import typer

from collector.audit.findings import AuditFinding
from collector.audit.report import Report, Window, moment
from collector.cli.common import (
    FAILED,
    Config,
    DataDir,
    ProductionClickHouse,
    ProductionKafka,
    failures,
    load_settings,
    print_text,
    refuse,
    table,
)
from collector.config.settings import Settings
from collector.query.times import unix_nano_of

_HOUR_NS: Final = 3600 * 10**9
_FAULTS_MAX: Final = 1000


def audit(
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Judge requests received at or after this time (RFC 3339).",
            show_default="an hour before --to",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Judge requests received before this time (RFC 3339).", show_default="now"),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Judge only this tenant's requests.", show_default="all")
    ] = None,
    faults: Annotated[
        int, typer.Option("--faults", min=0, max=_FAULTS_MAX, help="Print at most so many batches that do not add up.")
    ] = 20,
    found: Annotated[
        bool, typer.Option("--found", help="List the differences that scheduled audits found; judge nothing.")
    ] = False,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm",
            help="Confirm all differences that scheduled audits found, which ends the alarm; judge and delete nothing.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    kafka: ProductionKafka = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Compare what was accepted with what is stored.

    It counts the records in the broker, the store and the dead letters. The exit status is 0 if there is no difference.
    """
    if found or confirm:
        if since or until or tenant or (found and confirm):
            refuse("--found and --confirm are for all findings of scheduled audits: give each of them alone")
        flags: dict[str, object] = {"data_dir": data_dir, "kafka.bootstrap": kafka, "clickhouse.url": clickhouse}
        _print_findings(load_settings(config, flags).settings, is_confirmed=confirm, as_json=as_json)
        return
    end = time.time_ns() if until is None else _time("--to", until)
    start = end - _HOUR_NS if since is None else _time("--from", since)
    if start >= end:
        refuse(f"--from, {moment(start)}, must be before --to, {moment(end)}")
    settings = load_settings(config, {"data_dir": data_dir, "kafka.bootstrap": kafka, "clickhouse.url": clickhouse}).settings
    from collector.app.audit import audit as run  # noqa: PLC0415  # the engine: a second that others need not wait

    with failures():
        report = run(settings, Window(max(start, 0), end, tenant), faults)
    print_text(json.dumps(document(report), indent=2, ensure_ascii=False) if as_json else shown(report))
    if not report.adds_up:
        raise typer.Exit(FAILED)


def _print_findings(settings: Settings, *, is_confirmed: bool, as_json: bool) -> None:
    """Print the findings of scheduled audits, or, if `is_confirmed`, confirm the open ones and print them."""
    from collector.app.audit_findings import audit_findings, confirm_findings  # noqa: PLC0415  # as in audit

    with failures():
        findings = confirm_findings(settings, getpass.getuser()) if is_confirmed else audit_findings(settings)
    if as_json:
        print_text(json.dumps([_finding_document(finding) for finding in findings], indent=2))
    elif is_confirmed:
        for it in findings:
            print_text(f"confirmed {moment(it.start)} to {moment(it.end)}: difference {it.difference:,}")
        if not findings:
            print_text("nothing to confirm")
    elif findings:
        rows = [("FROM", "TO", "DIFFERENCE", "STATE", "SINCE", "BY")]
        rows += [
            (moment(it.start), moment(it.end), f"{it.difference:,}", it.state, moment(it.at), it.actor or "-")
            for it in findings
        ]
        print_text(table(rows))
    else:
        print_text("scheduled audits found nothing")


def _finding_document(finding: AuditFinding) -> dict[str, Any]:
    """Return a finding for JSON, with times in RFC 3339."""
    times = {name: moment(getattr(finding, name)) for name in ("start", "end", "at")}
    return {
        "from": times["start"],
        "to": times["end"],
        "difference": finding.difference,
        "state": finding.state,
        "since": times["at"],
        "by": finding.actor or None,
    }


def document(report: Report) -> dict[str, Any]:
    """Return the report for JSON, with times in RFC 3339."""
    return {
        "adds_up": report.adds_up,
        "difference": report.difference,
        "from": moment(report.window.start),
        "to": moment(report.window.end),
        "tenant": report.window.tenant,
        "messages_behind": report.messages_behind,
        "batches": report.batches,
        "topics": {topic: dataclasses.asdict(total) for topic, total in report.topics.items()},
        "rejected": {
            "told": report.rejected,
            "kept": report.rejected_kept,
            "not_kept": report.rejected - report.rejected_kept,
            "dead_letters": report.dead_letters,
            "difference": report.dead_letters_difference,
        },
        "receipts": {"difference": report.receipts_at_fault, "broker_difference": report.receipts_in_broker_difference},
        "lost_requests": report.lost_requests,
        "log_lost_messages": report.log_lost_messages,
        "unacknowledged_batches": report.unacknowledged,
        "unreadable_messages": report.unreadable,
        "notes": report.notes,
        "faults": [fault._asdict() for fault in report.faults],
        "faults_total": report.faults_total,
    }


def shown(report: Report) -> str:
    """Return the report as text for people."""
    lines = [f"{report.batches:,} batches from {moment(report.window.start)} to {moment(report.window.end)}"]
    rows = [("TOPIC", "ACCEPTED", "IN THE BROKER", "STORED", "DEAD LETTERS", "DUPLICATES", "DIFFERENCE")]
    for topic, total in report.topics.items():
        broker = "-" if total.broker is None else f"{total.broker:,}"
        numbers = (
            total.accepted,
            total.stored,
            total.dead_letters,
            total.duplicates,
            total.difference + total.broker_difference,
        )
        accepted, stored, letters, duplicates, difference = (f"{number:,}" for number in numbers)
        rows.append((topic, accepted, broker, stored, letters, duplicates, difference))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += [
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width) for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    not_kept = report.rejected - report.rejected_kept
    lines += [
        f"rejected: {report.rejected:,}, of which kept {report.rejected_kept:,}, not kept {not_kept:,};"
        f" dead letters {report.dead_letters:,}, difference {report.dead_letters_difference:,}",
        f"receipts: difference {report.receipts_at_fault + report.receipts_in_broker_difference:,};"
        f" lost requests: {'not judged' if report.lost_requests is None else format(report.lost_requests, ',')}",
    ]
    if report.log_lost_messages:
        lost = report.log_lost_messages
        lines.append(f"acknowledged messages that the local log reports as lost: {lost:,}; `log show` lists them")
    if report.unacknowledged:
        lines.append(f"kept in part, and never acknowledged: {report.unacknowledged:,} batches")
    if report.unreadable:
        lines.append(f"messages that cannot be read: {report.unreadable:,}, in the dead letters")
    lines += [f"note: {note}" for note in report.notes]
    for fault in report.faults:
        who = f"batch {fault.batch_id}{f' of {fault.tenant}' if fault.tenant else ''}: " if fault.batch_id else ""
        lines.append(f"at fault, {fault.received_at}: {who}{fault.what}")
    if report.faults_total > len(report.faults):
        lines.append(f"and {report.faults_total - len(report.faults):,} more")
    lines.append(_verdict(report))
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    """Return the last line of the report: the difference, and how many messages wait to be stored."""
    if not report.messages_behind:
        return "everything adds up" if report.adds_up else f"IT DOES NOT ADD UP: difference {report.difference:,}"
    one = report.messages_behind == 1
    waiting = "1 message waits" if one else f"{report.messages_behind:,} messages wait"
    if report.adds_up:
        return f"everything adds up; {waiting} to be stored: ask again later to judge {'it' if one else 'them'} too"
    return f"NOT JUDGED: difference {report.difference:,}, but {waiting} to be stored, which may be all of it: ask again later"


def _time(name: str, text: str) -> int:
    """Return the time of an option in nanoseconds since the Unix epoch. Exit with status 2 if it is not RFC 3339."""
    try:
        return unix_nano_of(name, text)
    except ValueError as error:
        refuse(str(error))
