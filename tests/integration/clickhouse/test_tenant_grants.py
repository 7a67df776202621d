"""A tenant's user of a ClickHouse server reads its own rows, and no others.

The statements are parsed by the engine. What they give is tried in the embedded engine, which has users from a file only. That
a server runs the statements is tried where CLICKHOUSE_URL names one.
"""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from support.processes.clickhouse_server import OPTIONS, server
from support.processes.engine_with_users import Reader
from support.reopened_store import store_with_tables

from collector.store import tenant_grants
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import ROLLUPS, SESSIONS
from collector.store.migrations import identifier, literal
from collector.store.options import QueryLimits, RequestedTables
from collector.store.retention import Retention
from collector.store.tenant_grants import DELIVERY, TELEMETRY, TenantGrants

OWN, OTHER = "acme", "it's the \\rival` ; DROP USER x --"
# Those for ClickStack are made by settings: test_clickstack.py has them.
FOR_CLICKSTACK = {*ROLLUPS, *(f"{table}_mv" for table in ROLLUPS), SESSIONS}
TENANT_COLUMNS = {name: column for name, column in tenant_grants.TENANT_COLUMNS.items() if name not in FOR_CLICKSTACK}
NEVER_READ = tenant_grants.NEVER_READ - FOR_CLICKSTACK
GRANTS = TenantGrants("default", limits=QueryLimits(time_max_s=60.5, result_rows_max=1000))
USERS = {"plain": (OWN, GRANTS), "odd": (OTHER, GRANTS), "full": (OWN, GRANTS._replace(has_delivery=True))}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two rows of each tenant in every table that keeps rows of tenants; closed."""
    directory: Path = tmp_path_factory.mktemp("store") / "store"
    wanted = RequestedTables(Retention(dead_letters=None), fsync=False)
    with closing(store_with_tables(directory, OPTIONS._replace(tables=wanted))) as made:
        for table in TENANT_COLUMNS:
            if made.read(f"SELECT engine FROM system.tables WHERE name = '{table}'", "TSV") != b"View\n":
                made._command(
                    f"INSERT INTO {table} (TenantId) SELECT arrayJoin([{literal(OWN)}, {literal(OTHER)}]) FROM numbers(2)"
                )
    return directory


@pytest.fixture(scope="module")
def reader(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    of_users = {name: list(grants.of_tenant(tenant, None)) for name, (tenant, grants) in USERS.items()}
    return Reader(store, tmp_path_factory.mktemp("users"), GRANTS.shared(), of_users)


def read_as(user: str, source: str, columns: str) -> list[str]:
    """Statements by which a user reads. The view has no policy, and the columns are named so that it is no other view's."""
    return [
        f"CREATE OR REPLACE VIEW reads DEFINER = {user} SQL SECURITY DEFINER AS SELECT {columns} FROM {source}",
        "SELECT * FROM reads",
    ]


def test_every_table_is_listed(store: Path) -> None:
    """A table or view that a migration adds has to be listed, with its column of tenants or as one that tenants never read."""
    with closing(ClickHouseStore.embedded(store, OPTIONS)) as opened:
        names = opened.read("SELECT name FROM system.tables WHERE database = currentDatabase()", "TSV").decode().split()
        columns = "SELECT table, name FROM system.columns WHERE database = currentDatabase()"
        pairs = [line.split("\t") for line in opened.read(columns, "TSV").decode().splitlines()]
    assert {*TENANT_COLUMNS, *NEVER_READ} == set(names)
    assert set(TENANT_COLUMNS) & NEVER_READ == set()
    assert [] == [table for table, column in TENANT_COLUMNS.items() if [table, column] not in pairs]
    assert {table for table, column in pairs if column == "TenantId"} - NEVER_READ - {*TENANT_COLUMNS} == set()


@pytest.mark.parametrize("security", ["INVOKER", "DEFINER", "NONE"])
def test_a_tenant_reads_its_own_rows_only(reader: Reader, security: str) -> None:
    """This holds for every table and view, also one that a server made with its definer's rights, or without any check."""
    how = f"MODIFY {'DEFINER = default ' if security == 'DEFINER' else ''}SQL SECURITY {security}"
    statements = [f"ALTER TABLE {view} {how}" for view in ("telemetry", "dead_letters", "otel_metrics_exp_histogram")]
    asked = []
    around = {"merge('default', '^otel_logs$')": "TenantId", "view(SELECT * FROM otel_traces)": "TenantId"}
    for user in USERS:
        for table, column in (TENANT_COLUMNS | around).items():
            statements += read_as(user, table, f"arrayMap(x -> base64Encode(x), groupUniqArray({column})), count()")
            asked.append((user, table))
    answers = reader.ask(statements)
    assert [""] * 3 == answers[:3]
    assert {""} == set(answers[3::2])
    for (user, table), answer in zip(asked, answers[4::2], strict=True):
        tenant, grants = USERS[user]
        if table in DELIVERY and not grants.has_delivery:
            assert "ACCESS_DENIED" in answer, (user, table)
        else:
            found, count = answer.rstrip("\n").split("\t")
            assert (f"['{base64.b64encode(tenant.encode()).decode()}']", True) == (
                found.encode().decode("unicode_escape"),
                int(count) > 0,
            ), (user, table)


def test_what_tenants_never_read_is_refused(reader: Reader) -> None:
    """Also with everything that may be asked for; and what shows tables around their policies, or who else there is."""
    sources = [
        *NEVER_READ,
        "mergeTreeIndex(default, otel_logs)",
        "loop(default, otel_logs)",
        "system.users",
        "system.row_policies",
    ]
    sources += [
        "remote('127.0.0.1', default.otel_logs)",
        "url('http://127.0.0.1:1', CSV, 'x String')",
        "file('x', CSV, 'x String')",
    ]
    statements = [one for source in sources for one in read_as("full", source, "*")]
    answers = reader.ask(statements)
    assert [] == [source for source, answer in zip(sources, answers[1::2], strict=True) if "ACCESS_DENIED" not in answer]


def test_the_profile_limits(store: Path, tmp_path: Path) -> None:
    """Limits can be lowered, and neither raised nor removed; what drivers set may be set; nothing is written."""
    tried = {
        "SET max_execution_time = 1": "",
        "SET max_execution_time = 65": "",
        "SET max_execution_time = 66": "SETTING_CONSTRAINT_VIOLATION",
        "SET max_execution_time = 0": "SETTING_CONSTRAINT_VIOLATION",
        "SET max_memory_usage = 0": "SETTING_CONSTRAINT_VIOLATION",
        "SET max_memory_usage = 100000000": "",
        "SET max_memory_usage = 100000000000": "SETTING_CONSTRAINT_VIOLATION",
        "SET max_result_rows = 1001": "SETTING_CONSTRAINT_VIOLATION",
        "SET max_result_rows = 0": "SETTING_CONSTRAINT_VIOLATION",
        "SET max_result_bytes = 0": "SETTING_CONSTRAINT_VIOLATION",
        "SET use_query_condition_cache = 1": "SETTING_CONSTRAINT_VIOLATION",
        "SET readonly = 0": "READONLY",
        "SET output_format_json_quote_64bit_integers = 1": "",
        "INSERT INTO otel_logs (TenantId) VALUES ('x')": "READONLY",
        "SELECT number FROM numbers(2000)": "TOO_MANY_ROWS",
    }
    reader = Reader(store, tmp_path, GRANTS.shared(), {}, profile="tenants")
    for (statement, expected), answer in zip(tried.items(), reader.ask(list(tried)), strict=True):
        assert (expected in answer) if expected else (answer == ""), (statement, answer)


@pytest.fixture
def engine(store: Path) -> Iterator[ClickHouseStore]:
    with closing(ClickHouseStore.embedded(store, OPTIONS)) as opened:
        yield opened


@pytest.mark.parametrize("cluster", ["", "it's {cluster}"])
def test_every_statement_is_what_the_engine_parses(engine: ClickHouseStore, cluster: str) -> None:
    """One statement each; and of a name that is full of quotes the same one as of any other name."""
    tenants = ("a b", OTHER)
    parsed = []
    for tenant in tenants:
        grants = GRANTS._replace(database="d `b`", cluster=cluster, all_rows=("default", f"writer {tenant}"))
        statements = [
            *grants.shared(),
            *grants.of_tenant(tenant, None),
            *grants.of_tenant(tenant, None, exists=True),
            *grants._replace(has_delivery=True).of_tenant(tenant, None),
            *grants.without_tenant(tenant),
        ]
        forms = []
        for statement in statements:
            formatted = engine.read(f"SELECT formatQuerySingleLine({literal(statement)})", "TSVRaw").decode()
            for written in (identifier, literal):
                for prefix in ("writer ", "restrictive tenant_", "permissive tenant_", "tenant_", ""):
                    formatted = formatted.replace(written(prefix + tenant), f"<{written.__name__} {prefix}>")
            assert tenant not in formatted
            forms.append(formatted)
        parsed.append(forms)
    assert parsed[0] == parsed[1]
    assert len(parsed[0]) > 20
    assert [] == [form for form in parsed[0] if bool(cluster) != ("ON CLUSTER" in form)]


def test_a_password_is_hashed_with_a_salt(engine: ClickHouseStore) -> None:
    """As ClickHouse computes it: SHA-256 of the password and then the salt. Two hashes of one password differ."""
    for statement in [*GRANTS.of_tenant(OWN, "pässword")][:2]:
        _, _, by = statement.partition(" IDENTIFIED WITH sha256_hash BY '")
        digest, _, rest = by.partition("' SALT '")
        salt = rest.partition("'")[0]
        assert engine.read(f"SELECT lower(hex(SHA256('pässword{salt}')))", "TSV").decode().strip() == digest
    assert next(GRANTS.of_tenant(OWN, "p")) != next(GRANTS.of_tenant(OWN, "p"))


def test_no_statement_opens_a_table_before_its_policies() -> None:
    """Cut short anywhere, a user has both policies of a table before it may read it; a user is removed before its policies."""
    for grants in (GRANTS, GRANTS._replace(has_delivery=True)):
        has_policy: dict[str, set[str]] = {}
        for statement in grants.of_tenant(OWN, None):
            kind, _, tables = statement.partition(" ON ")
            names = {table for table in TENANT_COLUMNS if f"`default`.{table} " in f"{tables.replace(',', ' ')} "}
            if kind.startswith("CREATE ROW POLICY"):
                has_policy.setdefault(kind, set()).update(names)
            if kind.startswith("GRANT"):
                assert names == set(TENANT_COLUMNS if grants.has_delivery else TELEMETRY) - FOR_CLICKSTACK
                assert len(has_policy) == 2
                assert all(names <= policies for policies in has_policy.values())
    assert next(GRANTS.without_tenant(OWN)) == "DROP USER IF EXISTS `tenant_acme`"


@pytest.mark.skipif("CLICKHOUSE_URL" not in os.environ, reason="needs a ClickHouse server, which keeps users")
def test_on_a_server(tmp_path: Path) -> None:
    """Made twice, changed, and removed by the statements, users of tenants log in and read what they may."""
    with server(tmp_path) as there, closing(there.store()) as store:
        store.apply_schema()
        for tenant in (OWN, OTHER):
            store.administer(f"INSERT INTO otel_logs (TenantId) VALUES ({literal(tenant)})")
        grants = TenantGrants(there.database, there.cluster, all_rows=(there.user,), user_prefix=f"{there.database}_")

        def reads(tenant: str, sql: str = "SELECT groupUniqArray(tenant) FROM telemetry") -> object:
            basic = base64.b64encode(f"{grants.user(tenant)}:password of {tenant}".encode()).decode()
            url = f"{there.url}/?database={quote(there.database)}&default_format=JSONCompactColumns"
            with urlopen(Request(url, sql.encode(), {"Authorization": f"Basic {basic}"}, method="POST")) as answer:
                return json.load(answer)[0][0]

        try:
            for _ in range(2):
                for statement in [
                    *grants.shared(),
                    *(s for t in (OWN, OTHER) for s in grants.of_tenant(t, f"password of {t}")),
                ]:
                    store.administer(statement)
                assert [[OWN], [OTHER]] == [reads(OWN), reads(OTHER)]
            with pytest.raises(HTTPError):
                reads(OWN, "SELECT TenantId FROM dead_letters")
        finally:
            for statement in (s for t in (OWN, OTHER) for s in grants.without_tenant(t)):
                store.administer(statement)
        with pytest.raises(HTTPError):
            reads(OWN)
