"""Statements that make a user of a ClickHouse server for each tenant. The user reads the rows of that tenant only.

A user has a settings profile with limits, row policies, and SELECT on the tables. A restrictive policy removes the rows of
other tenants, whatever other policies exist. A permissive policy is for servers on which a user without a policy reads nothing.
Views have policies too: for the tables below a view, the engine checks the policies of the view's definer, if it has one
(docs/adr/0047).

Invariants:
1. Every table and view of the schema is listed here: with its column of tenants, or as never read by tenants
   (test_every_table_is_listed).
2. A tenant reads its own rows of each table and view with a column of tenants, also of views with the rights of their definer.
   It reads no other table (test_a_tenant_reads_its_own_rows_only).
3. After each statement a tenant's user can read at most its own rows: policies come before grants, and a removal begins with
   the user (test_no_statement_opens_a_table_before_its_policies).
4. A name is always quoted, so it cannot become a statement (test_every_statement_is_what_the_engine_parses).
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from collector.store.contract import RECEIPTS, ROLLUPS, SESSIONS
from collector.store.migrations import identifier, literal
from collector.store.options import QueryLimits
from collector.store.retention import DEAD_LETTERS, EVENTS, TIME_COLUMNS

TELEMETRY: Final = {
    **{table: "TenantId" for table in TIME_COLUMNS if table != RECEIPTS},
    "otel_metrics_exp_histogram": "TenantId",
    "telemetry": "tenant",
    SESSIONS: "TenantId",
}
"""The tables and views that a tenant reads, each with its column of tenants. Those for ClickStack may be missing: rights to
them hold from when they are made."""

DELIVERY: Final = {**dict.fromkeys((RECEIPTS, DEAD_LETTERS[0], EVENTS[0]), "TenantId"), "dead_letters": "TenantId"}
"""Receipts and dead letters, which a tenant reads if the operator asks for that."""

TENANT_COLUMNS: Final = TELEMETRY | DELIVERY

NEVER_READ: Final = frozenset(
    {
        "schema_migrations",
        "telemetry_audit_findings",
        *(f"{table}_mv" for table in ROLLUPS),
        "landing_dead_letters",
        "landing_dead_letters_to_entries",
        "landing_dead_letters_to_events",
        "landing_logs",
        "landing_logs_to_logs",
        "landing_logs_to_messages",
        "landing_metrics",
        "landing_metrics_to_exponential_histogram",
        "landing_metrics_to_gauge",
        "landing_metrics_to_histogram",
        "landing_metrics_to_messages",
        "landing_metrics_to_sum",
        "landing_metrics_to_summary",
        "landing_resource_logs",
        "landing_resource_logs_by_message",
        "landing_resource_logs_to_logs",
        "landing_resource_metrics",
        "landing_resource_metrics_by_message",
        "landing_resource_metrics_to_exponential_histogram",
        "landing_resource_metrics_to_gauge",
        "landing_resource_metrics_to_histogram",
        "landing_resource_metrics_to_sum",
        "landing_resource_metrics_to_summary",
        "landing_resource_spans",
        "landing_resource_spans_by_message",
        "landing_resource_spans_by_trace",
        "landing_resource_spans_to_spans",
        "landing_traces",
        "landing_traces_to_messages",
        "landing_traces_to_trace_times",
        "landing_traces_to_traces",
    }
)
"""All other tables and views. Landing tables keep no rows. Their views have no policies, since these could change what an
insert writes."""

PROFILE: Final = "infrasage_tenants"
USER_PREFIX: Final = "tenant_"
ALL_ROWS_POLICY: Final = "infrasage_all_rows"
# This text is no hash. So the server refuses the statement until the text is replaced by a hash.
NO_PASSWORD: Final = "SHA256-OF-THE-PASSWORD"  # noqa: S105 - a text that is no password
_SALT_BYTES: Final = 16
_DRIVERS_MARGIN_S: Final = 5


class TenantGrants(NamedTuple):
    """Yields the statements about the tenants' users in one database.

    `all_rows` are users who read the rows of all tenants, first of all the collector's own. `has_delivery` is whether tenants
    also read their own receipts and dead letters."""

    database: str
    cluster: str = ""
    limits: QueryLimits = QueryLimits()
    all_rows: Sequence[str] = ("default",)
    has_delivery: bool = False
    user_prefix: str = USER_PREFIX

    def user(self, tenant: str) -> str:
        """Return the name of a tenant's user. Because of the prefix, it cannot be the name of another user."""
        return self.user_prefix + tenant

    def shared(self) -> Iterator[str]:
        """Yield the statements that all tenants' users need: the profile, and a policy by which other users read every row."""
        yield f"CREATE SETTINGS PROFILE IF NOT EXISTS {identifier(PROFILE)}{self._on_cluster()}"
        # OR REPLACE is not used: users refer to a profile by its identity, so a new profile would leave them without limits.
        yield f"ALTER SETTINGS PROFILE {identifier(PROFILE)}{self._on_cluster()} SETTINGS {', '.join(self._settings())}"
        if self.all_rows:
            yield self._policy(ALL_ROWS_POLICY, TENANT_COLUMNS, "PERMISSIVE", "1", ", ".join(map(identifier, self.all_rows)))

    def of_tenant(self, tenant: str, password: str | None, *, exists: bool = False) -> Iterator[str]:
        """Yield the statements that give a tenant its user. Each may be run again.

        If `password` is None, an existing user keeps its password; a new user's statement has a text that the server refuses.
        """
        user = identifier(self.user(tenant))
        identified = _identified(password)
        settings = f"DEFAULT DATABASE {identifier(self.database)} SETTINGS PROFILE {identifier(PROFILE)}"
        if not exists:
            yield f"CREATE USER IF NOT EXISTS {user}{self._on_cluster()}{identified} {settings}"
        # A user that existed before gets these properties too.
        yield f"ALTER USER {user}{self._on_cluster()}{identified if password is not None else ''} {settings}"
        for kind in ("RESTRICTIVE", "PERMISSIVE"):
            for column, tables in _by_column().items():
                yield self._policy(_policy_name(kind, self.user(tenant)), tables, kind, f"{column} = {literal(tenant)}", user)
        if not self.has_delivery:
            yield f"REVOKE{self._on_cluster()} {self._selects(DELIVERY)} FROM {user}"
        granted = TENANT_COLUMNS if self.has_delivery else TELEMETRY
        yield f"GRANT{self._on_cluster()} {self._selects(granted)} TO {user}"

    def without_tenant(self, tenant: str) -> Iterator[str]:
        """Yield the statements that remove a tenant's user and its policies."""
        user = self.user(tenant)
        yield f"DROP USER IF EXISTS {identifier(user)}{self._on_cluster()}"
        for kind in ("RESTRICTIVE", "PERMISSIVE"):
            policy = identifier(_policy_name(kind, user))
            yield f"DROP ROW POLICY IF EXISTS {policy}{self._on_cluster()} ON {self._tables(TENANT_COLUMNS)}"

    def _settings(self) -> Iterator[str]:
        # With 2, statements are as restricted as with 1, but drivers and Grafana's plugin may set the form of answers.
        yield "readonly = 2"
        # Go's driver sends the time that its caller waits plus 5 s. The value 0 would be no limit, so each MIN is above it.
        time_s = self.limits.time_max_s
        yield f"max_execution_time = {time_s} MIN 0.001 MAX {time_s + _DRIVERS_MARGIN_S}"
        limits = {
            "max_memory_usage": self.limits.memory_bytes_max,
            "max_result_rows": self.limits.result_rows_max,
            "max_result_bytes": self.limits.result_bytes_max,
        }
        for name, value in limits.items():
            yield f"{name} = {value} MIN 1 MAX {value}"
        yield "result_overflow_mode = 'throw' CONST"
        # This cache keeps which granules match a condition. A result for one tenant must not change another tenant's rows.
        yield "use_query_condition_cache = 0 CONST"

    def _policy(self, name: str, tables: Mapping[str, str], kind: str, condition: str, users: str) -> str:
        return (
            f"CREATE ROW POLICY OR REPLACE {identifier(name)}{self._on_cluster()} ON {self._tables(tables)}"
            f" AS {kind} FOR SELECT USING {condition} TO {users}"
        )

    def _selects(self, tables: Mapping[str, str]) -> str:
        return ", ".join(f"SELECT ON {identifier(self.database)}.{table}" for table in tables)

    def _tables(self, tables: Mapping[str, str]) -> str:
        return ", ".join(f"{identifier(self.database)}.{table}" for table in tables)

    def _on_cluster(self) -> str:
        return f" ON CLUSTER {literal(self.cluster)}" if self.cluster else ""


def _by_column() -> dict[str, dict[str, str]]:
    """Return the tables by their column of tenants, since a policy has one condition."""
    found: dict[str, dict[str, str]] = {}
    for table, column in TENANT_COLUMNS.items():
        found.setdefault(column, {})[table] = column
    return found


def _policy_name(kind: str, user: str) -> str:
    return f"{kind.lower()} {user}"


def _identified(password: str | None) -> str:
    """Return the clause that identifies the user. No statement contains the password, so no log of statements contains it."""
    if password is None:
        return f" IDENTIFIED WITH sha256_hash BY '{NO_PASSWORD}'"
    salt = secrets.token_hex(_SALT_BYTES)
    return f" IDENTIFIED WITH sha256_hash BY '{hashlib.sha256((password + salt).encode()).hexdigest()}' SALT '{salt}'"
