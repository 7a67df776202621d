"""The command keys: create, list, revoke and rotate API keys.

Invariants:
1. A new key is alone on standard output, and is written nowhere else (test_a_new_key_is_alone_on_standard_output).
2. The text of a key is never shown again, only its public id (test_a_list_has_no_secrets).
3. A key that could not be shown is not left in force (test_a_key_that_can_not_be_shown_is_not_left_in_force).
4. A key that is rotated ends only after the new key was shown (test_a_key_is_rotated).
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from collector.cli.common import (
    Config,
    DataDir,
    KeysFile,
    fail,
    failures,
    load_settings,
    print_notice,
    print_text,
    refuse,
    table,
)
from collector.config.settings import Settings
from collector.tenancy import key_format, keys
from collector.tenancy.keys import Created
from collector.tenancy.keys_file import Key, note_problem, origins_problem, shown, tenant_problem, time_text
from collector.tenancy.scopes import Scope

_KEEP_OLD_S_MAX: Final = 366 * 86_400

app = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)

IdOrKey = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The id that `keys list` shows, or the whole key; -: read one of them from standard input."
    ),
]


@app.command()
def create(
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant that records sent with the key belong to.")],
    scope: Annotated[Scope, typer.Option("--scope", help="What the key allows.")],
    plan: Annotated[
        str,
        typer.Option(
            "--plan", help="The plan, which limits how much may be sent: Free, Pro, Unlimited, or a plan of the settings."
        ),
    ],
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            metavar="ORIGIN",
            help="Only pages of this origin may send with the key, as https://*.example.com; may be given several times.",
            show_default="every sender that has the key",
        ),
    ] = None,
    note: Annotated[
        str, typer.Option("--note", help="What the key is for; only `keys list` shows it.", show_default="none")
    ] = "",
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    config: Config = None,
) -> None:
    """Create a key and print it, once.

    The key cannot be shown again, because only its hash is kept.
    """
    settings, path = _settings(data_dir, keys_file, config)
    if (problem := tenant_problem(tenant)) is not None:
        refuse(f"--tenant: {shown(tenant)} {problem}")
    if (problem := note_problem(note)) is not None:
        refuse(f"--note: {shown(note)} {problem}")
    if (problem := _plan_problem(plan, settings)) is not None:
        refuse(f"--plan: {problem}")
    origins = tuple(origin or ())
    if (problem := origins_problem(origins, scope)) is not None:
        refuse(f"--origin: origins {problem}")
    with failures():
        created = keys.create(path, tenant=tenant, scope=scope, plan=plan, note=note, origins=origins, now=_now())
        _hand_out(path, created)
    _print_created(path, created)


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    config: Config = None,
) -> None:
    """List all keys, without their secrets."""
    _, path = _settings(data_dir, keys_file, config)
    with failures():
        found = keys.list_keys(path)
    now = _now()
    if as_json:
        print_text(json.dumps([_as_json(key, now) for key in found], indent=2, ensure_ascii=False))
        return
    rows = [("ID", "TENANT", "SCOPE", "PLAN", "CREATED", "STATE", "NOTE")]
    rows += [(key.id, key.tenant, key.scope, key.plan, time_text(key.created), _state(key, now), key.note) for key in found]
    print_text(table(rows))


@app.command()
def revoke(id_or_key: IdOrKey, data_dir: DataDir = None, keys_file: KeysFile = None, config: Config = None) -> None:
    """Revoke a key for good.

    Gateways refuse the key within tenants.keys_reload_s.
    """
    _, path = _settings(data_dir, keys_file, config)
    with failures():
        key = keys.find(path, _argument_text(id_or_key))
        now = _now()
        if key.has_ended(now):
            print_notice(f"key {key.id} of tenant {key.tenant} had {_state(key, now)} already")
            return
        key = keys.end(path, key.id, at=now, now=now)
    print_notice(f"key {key.id} of tenant {key.tenant} has {_state(key, now)}")


@app.command()
def rotate(
    id_or_key: IdOrKey,
    keep_old_s: Annotated[
        int, typer.Option("--keep-old-s", min=0, max=_KEEP_OLD_S_MAX, help="For how many seconds the old key stays valid.")
    ] = 0,
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    config: Config = None,
) -> None:
    """Replace a key by a new one, and print the new one.

    The new key has the same tenant, scope, plan, note and origins.
    """
    settings, path = _settings(data_dir, keys_file, config)
    with failures():
        old = keys.find(path, _argument_text(id_or_key))
        now = _now()
        if old.has_ended(now):
            fail(f"key {old.id} of tenant {old.tenant} {_state(old, now)}: `keys create` makes another")
        if (problem := _plan_problem(old.plan, settings)) is not None:
            fail(f"key {old.id} of tenant {old.tenant}: {problem}; `keys create` makes one on another plan")
        created = keys.create(
            path, tenant=old.tenant, scope=old.scope, plan=old.plan, note=old.note, origins=old.origins, now=now
        )
        _hand_out(path, created)
        now = _now()
        old = keys.end(path, old.id, at=now + timedelta(seconds=keep_old_s), now=now)
    _print_created(path, created)
    print_notice(f"The old key, {old.id}, {'has ' if old.has_ended(now) else 'is '}{_state(old, now)}.")


def _settings(data_dir: Path | None, keys_file: Path | None, config: Path | None) -> tuple[Settings, Path]:
    """Return the settings, and the path of the keys file."""
    settings = load_settings(config, {"data_dir": data_dir, "tenants.keys_file": keys_file}).settings
    return settings, keys.path_of(settings.data_dir, settings.tenants.keys_file)


def _plan_problem(plan: str, settings: Settings) -> str | None:
    """Return why a key can't have this plan; None if it can."""
    known = settings.plans_by_name()
    # Gateways would refuse the whole keys file for a plan that they do not know.
    return None if plan in known else f"there is no plan {shown(plan)} in the settings; there are {', '.join(known)}"


def _argument_text(argument: str) -> str:
    """Return the id or key that an argument names: itself, or for "-" the first line of standard input."""
    return sys.stdin.readline(2 * key_format.LENGTH).strip() if argument == "-" else argument


def _hand_out(path: Path, created: Created) -> None:
    """Print a new key. If that fails, revoke the key, and exit with status 1."""
    try:
        typer.echo(created.text)
    except OSError as error:
        now = _now()
        keys.end(path, created.key.id, at=now, now=now)
        fail(
            f"cannot write the new key to standard output: {error.strerror}; it was revoked again, and nothing else has changed"
        )


def _print_created(path: Path, created: Created) -> None:
    key = created.key
    pages = f", only from pages of {', '.join(key.origins)}" if key.origins else ""
    print_notice(f"key {key.id}: tenant {key.tenant}, scope {key.scope}, plan {key.plan}{pages}; in {path}")
    print_notice("It can't be shown again. Send it as X-API-Key: KEY, or as Authorization: Bearer KEY.")


def _as_json(key: Key, now: datetime) -> dict[str, str | list[str] | None]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scope": key.scope,
        "plan": key.plan,
        "created": time_text(key.created),
        "ends": None if key.ends is None else time_text(key.ends),
        "state": "ended" if key.has_ended(now) else "active",
        "note": key.note,
        "origins": list(key.origins),
    }


def _state(key: Key, now: datetime) -> str:
    """Return the state of a key for people: active, active until a time, or ended at a time."""
    if key.ends is None:
        return "active"
    return f"{'ended' if key.has_ended(now) else 'active until'} {time_text(key.ends)}"


def _now() -> datetime:
    return datetime.now(UTC)
