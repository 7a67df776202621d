"""The command `schema grants`: create a user of a ClickHouse server for each tenant.

Invariants:
1. No password is printed; the statements contain its salted hash (test_no_password_is_printed).
2. A name that no tenant can have is refused before the server is contacted (test_a_name_that_is_none_is_refused).
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from collector.cli.common import Config, DataDir, KeysFile, ProductionClickHouse, failures, load_settings, refuse
from collector.store.tenant_grants import USER_PREFIX
from collector.tenancy.keys_file import shown, tenant_problem

Tenants = Annotated[
    list[str] | None,
    typer.Option(
        "--tenant",
        metavar="TENANT",
        help="Create a user for this tenant; may be given several times.",
        show_default="every tenant in the keys file with a key in force",
    ),
]
Removed = Annotated[
    list[str] | None,
    typer.Option(
        "--remove",
        metavar="TENANT",
        help="Remove this tenant's user; may be given several times. Without --tenant, nothing else is done.",
        show_default="none",
    ),
]
Passwords = Annotated[
    Path | None,
    typer.Option(
        "--passwords",
        help='A JSON file with the passwords of tenants: {"TENANT": "PASSWORD"}. Only their hashes reach the server.',
        show_default="none: users keep theirs",
    ),
]
WithDeadLetters = Annotated[
    bool, typer.Option("--with-dead-letters", help="Let tenants read their own receipts and dead letters too.")
]
AllRows = Annotated[
    list[str] | None,
    typer.Option(
        "--all-rows",
        metavar="USER",
        help="A user who continues to read the rows of all tenants, as clickhouse.user does; may be given several times.",
        show_default="none",
    ),
]
UserPrefix = Annotated[str, typer.Option("--user-prefix", help="The beginning of the users' names, before the tenant.")]
Apply = Annotated[bool, typer.Option("--apply", help="Run the statements on the server, instead of printing them.")]


def grants(
    tenant: Tenants = None,
    remove: Removed = None,
    passwords: Passwords = None,
    with_dead_letters: WithDeadLetters = False,
    all_rows: AllRows = None,
    user_prefix: UserPrefix = USER_PREFIX,
    apply: Apply = False,
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    clickhouse: ProductionClickHouse = None,
    config: Config = None,
) -> None:
    """Print or apply a ClickHouse user for each tenant.

    A tenant's user reads only the rows of the tenant. Run the command again after an upgrade that adds tables.
    """
    for option, names in (("--tenant", tenant), ("--remove", remove)):
        for name in names or ():
            if (problem := tenant_problem(name)) is not None:
                refuse(f"{option}: {shown(name)} {problem}")
    if both := sorted(set(tenant or ()) & set(remove or ())):
        refuse(f"--remove: {shown(both[0])} is named by --tenant too")
    if re.fullmatch(r"[A-Za-z0-9_]{1,64}", user_prefix) is None:
        refuse(f"--user-prefix: {shown(user_prefix)} must be 1 to 64 letters, digits and underscores of ASCII")
    settings = load_settings(
        config, {"data_dir": data_dir, "tenants.keys_file": keys_file, "clickhouse.url": clickhouse}
    ).settings
    from collector.app import grants as users  # noqa: PLC0415  # the engine is loaded for --apply only

    requested = users.RequestedGrants(
        tenants=tenant or None,
        removed=remove or (),
        passwords=passwords,
        all_rows=all_rows or (),
        has_delivery=with_dead_letters,
        user_prefix=user_prefix,
    )
    with failures():
        typer.echo((users.apply if apply else users.text)(settings, requested))
