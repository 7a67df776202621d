"""The command `schema grants`: makes users of a ClickHouse server, one for each tenant, with their grants."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from collector.app.data_dir import is_embedded
from collector.app.storage import open_server, query_limits
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError, StoreUnavailable
from collector.store.migrations import literal
from collector.store.tenant_grants import NO_PASSWORD, TenantGrants
from collector.telemetry import logs
from collector.tenancy import keys
from collector.tenancy.keys_file import shown

if TYPE_CHECKING:
    # Imported where it is used, since it loads the engine's library.
    from collector.store.clickhouse import ClickHouseStore

_PASSWORDS_BYTES_MAX: Final = 64 * 1024 * 1024


class RequestedGrants(NamedTuple):
    """The users and grants that a call asks for. `tenants` is None for the tenants of the keys file. `removed` are the tenants
    whose users are removed. `passwords` is a file with a JSON object of passwords by tenant. `all_rows` are further users that
    read the rows of all tenants. `user_prefix` begins the name of each tenant's user."""

    tenants: Sequence[str] | None
    removed: Sequence[str]
    passwords: Path | None
    all_rows: Sequence[str]
    has_delivery: bool
    user_prefix: str


def text(settings: Settings, requested: RequestedGrants) -> str:
    """Return the SQL statements as text, without a request to the server. Raises CannotRun."""
    grants, passwords = _grants(settings, requested), _passwords(requested.passwords)
    tenants = _tenants(settings, requested)
    lines = [f"{statement};" for statement in grants.shared()] if tenants else []
    for tenant in tenants:
        lines.append(f"-- tenant {shown(tenant)}")
        if tenant not in passwords:
            lines.append(f"-- put the SHA-256 of a password in the place of {NO_PASSWORD}, or give it with --passwords")
        lines += [f"{statement};" for statement in grants.of_tenant(tenant, passwords.get(tenant))]
    for tenant in requested.removed:
        lines.append(f"-- without tenant {shown(tenant)}")
        lines += [f"{statement};" for statement in grants.without_tenant(tenant)]
    return "\n".join(lines)


def apply(settings: Settings, requested: RequestedGrants) -> str:
    """Run the statements on the server. Return a line for each user that was made, changed or removed. If neither tenants nor
    users to remove are named, also return a line for each user whose tenant has no key. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    if is_embedded(settings):
        raise CannotRun(
            "--apply needs a ClickHouse server (--clickhouse, clickhouse.url): the embedded engine has no users, and its"
            " tenants ask with their keys on store.http_port"
        )
    grants, passwords = _grants(settings, requested), _passwords(requested.passwords)
    tenants = _tenants(settings, requested)
    try:
        with contextlib.closing(open_server(settings)) as store:
            users = _users(store, settings.clickhouse.user, requested.user_prefix)
            _check_passwords([tenant for tenant in tenants if grants.user(tenant) not in users], passwords)
            lines = list(_applied(store, grants, tenants, requested.removed, passwords, users))
    except StoreError as error:
        raise CannotRun(f"{error}; what was done until then stays, and `schema grants` may be run again") from error
    if requested.tenants is None and not requested.removed:
        strays = sorted(users - set(map(grants.user, tenants)))
        lines += [f"user {shown(user)} has no tenant in the keys file; --remove TENANT removes one" for user in strays]
    return "\n".join(lines)


def _applied(
    store: "ClickHouseStore",
    grants: TenantGrants,
    tenants: Sequence[str],
    removed: Sequence[str],
    passwords: Mapping[str, str],
    users: set[str],
) -> Iterator[str]:
    for statement in grants.shared() if tenants else ():
        store.administer(statement)
    for tenant in tenants:
        exists = grants.user(tenant) in users
        for statement in grants.of_tenant(tenant, passwords.get(tenant), exists=exists):
            store.administer(statement)
        yield f"{'changed' if exists else 'made'} user {shown(grants.user(tenant))} for tenant {shown(tenant)}"
    for tenant in removed:
        for statement in grants.without_tenant(tenant):
            store.administer(statement)
        yield f"removed user {shown(grants.user(tenant))}"


def _grants(settings: Settings, requested: RequestedGrants) -> TenantGrants:
    all_rows = tuple(dict.fromkeys((settings.clickhouse.user, *requested.all_rows)))
    for user in all_rows:
        if user.startswith(requested.user_prefix):
            raise CannotRun(
                f"user {shown(user)} is to read every row, and has the name of a tenant's: --user-prefix, which is"
                f" {requested.user_prefix}, must be another"
            )
    return TenantGrants(
        database=settings.clickhouse.database,
        cluster=settings.clickhouse.cluster,
        limits=query_limits(settings),
        all_rows=all_rows,
        has_delivery=requested.has_delivery,
        user_prefix=requested.user_prefix,
    )


def _tenants(settings: Settings, requested: RequestedGrants) -> list[str]:
    """Return the named tenants or, if none are named, those with a valid key that is not an administrator's. Return no tenant
    if only users to remove are named. Raises CannotRun if the keys file has no such key."""
    if requested.tenants is not None:
        return sorted(set(requested.tenants))
    if requested.removed:
        return []
    path = keys.path_of(settings.data_dir, settings.tenants.keys_file)
    now = datetime.now(UTC)
    found = {key.tenant for key in keys.list_keys(path) if not (key.has_ended(now) or key.scope.is_admin)}
    if not found:
        raise CannotRun(f"{path} has no valid key except administrators' keys; name tenants by --tenant")
    return sorted(found)


def _users(store: "ClickHouseStore", asking: str, prefix: str) -> set[str]:
    sql = f"SELECT name FROM system.users WHERE startsWith(name, {literal(prefix)})"  # noqa: S608 - quoted
    try:
        found = store.read(f"SELECT groupArray(name) FROM ({sql})", "JSONCompactColumns")  # noqa: S608 - the same
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise CannotRun(
            f"user {shown(asking)} can't see which users there are: {error}; docs/operate/tenants.md lists the grants that"
            " --apply needs; clickhouse.user can be set to another user"
        ) from error
    return set(json.loads(found)[0][0])


def _check_passwords(made: Sequence[str], passwords: Mapping[str, str]) -> None:
    lacking = [shown(tenant) for tenant in made if tenant not in passwords]
    if lacking:
        raise CannotRun(
            f'no password for the new users of {", ".join(lacking)}: --passwords names a JSON file, {{"TENANT": "PASSWORD"}};'
            " --tenant names the tenants that are to have users. Nothing was changed"
        )


def _passwords(file: Path | None) -> dict[str, str]:
    """Return the passwords in a file, by tenant. No error message contains a password. Raises CannotRun."""
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            data = opened.read(_PASSWORDS_BYTES_MAX + 1)
        if len(data) > _PASSWORDS_BYTES_MAX:
            raise CannotRun(f"--passwords: {file} has more than {_PASSWORDS_BYTES_MAX:,} bytes")
        found = json.loads(data.decode())
    except OSError as error:
        raise CannotRun(f"--passwords: cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(password, str) and password for password in found.values()):
        raise CannotRun(f'--passwords: {file} must be a JSON object of passwords that are not empty, {{"TENANT": "PASSWORD"}}')
    return found
