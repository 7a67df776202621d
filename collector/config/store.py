"""The sections of the settings for the store: ClickHouse, tables, queries, and dead letters."""

from typing import Final, Literal

from pydantic import Field

from collector.config.values import (
    DAYS_MAX,
    GIB,
    KIB,
    MIB,
    AttributeKeys,
    Bytes,
    Name,
    Number,
    OptionalLocation,
    OptionalWhole,
    Quorum,
    Secret,
    Section,
    ServerUrl,
    TenantDays,
    Text,
    Whole,
    limit,
)


class ClickHouse(Section):
    """ClickHouse as a server, instead of the embedded engine. Without `url`, the other settings here are not used."""

    url: ServerUrl = Field(
        default="", description="Address of the server's HTTP interface. Empty: the embedded engine, in data_dir/store."
    )
    user: Text = Field(default="default", min_length=1, max_length=255, description="The user.")
    password: Secret = Field(default=None, description="The user's password. Never shown; see password_file.")
    password_file: OptionalLocation = Field(
        default=None, description="A file with the password, instead of password. A line end at the end of the file is ignored."
    )
    database: Name = Field(
        default="default",
        min_length=1,
        max_length=128,
        description="The database of the tables. It is created if it does not exist.",
    )
    cluster: Name = Field(
        default="",
        max_length=128,
        description="Name of a cluster. Tables are then replicated, and created on all its servers. Empty: none.",
    )
    shards_cluster: Name = Field(
        default="",
        max_length=128,
        description="A cluster with the servers of every shard. `schema apply` creates tables on it that read all shards, in"
        " shards_database. Empty: none.",
    )
    shards_database: Name = Field(
        default="shards", min_length=1, max_length=128, description="The database of the tables that read all shards."
    )
    ca_file: OptionalLocation = Field(
        default=None,
        description="CA certificates (PEM) that verify the server's certificate. none: those of the usual authorities.",
    )
    verify: bool = Field(
        default=True, description="Whether the server's certificate is verified. false: anyone can pose as the server."
    )
    insert_quorum: Quorum = Field(
        default=0, description="Replicas that must have an insert before it counts as stored. 0: one. auto: a majority."
    )
    connect_timeout_s: Number = limit(
        5, 0.1, 600, "Seconds within which a connection must be made, and its first ping answered."
    )
    request_timeout_s: Number = limit(
        300, 0.1, 86_400, "Seconds to wait for an answer. An insert without an answer is looked up before it is repeated."
    )


# How many times the bytes of its rows the insert of one message may need in memory: measured (docs/use/store.md).
INSERT_MEMORY_FACTOR: Final = 8


class StoreSection(Section):
    """The tables, the port of ClickHouse's protocol, and the limits of queries."""

    retention_days: OptionalWhole = limit(
        None,
        1,
        DAYS_MAX,
        "Days for which rows are kept. none: forever. Receivers reject items that would be kept for less than three hours, so"
        " gateways need the days of this section too.",
    )
    metrics_retention_days: OptionalWhole = limit(
        None, 1, DAYS_MAX, "Days for which data points are kept. none: as retention_days."
    )
    logs_retention_days: OptionalWhole = limit(
        None, 1, DAYS_MAX, "Days for which log records are kept. none: as retention_days."
    )
    traces_retention_days: OptionalWhole = limit(None, 1, DAYS_MAX, "Days for which spans are kept. none: as retention_days.")
    tenant_retention_days: TenantDays = Field(
        default="",
        description="Days for which all telemetry of single tenants is kept, whatever the other settings say. If it is set,"
        " merges remove rows, which costs more than to drop whole days.",
    )
    storage_policy: Name = Field(
        default="",
        max_length=128,
        description="Storage policy of the tables, from the server's configuration. Empty: it is not changed.",
    )
    cold_volume: Name = Field(
        default="",
        max_length=128,
        description="Volume of the storage policy for rows that are older than cold_after_days. Empty: none.",
    )
    cold_after_days: OptionalWhole = limit(
        None, 1, DAYS_MAX, "Days after which rows move to cold_volume. none: they stay where they are."
    )
    fsync: bool = Field(
        default=True,
        description="Whether an insert ends only when its parts are on disk, and not just in the operating system's memory.",
    )
    insert_memory_bytes_max: Bytes = limit(
        2 * GIB,
        64 * MIB,
        1024 * GIB,
        f"Most memory of an insert, in bytes: at least {INSERT_MEMORY_FACTOR} times broker.message_row_bytes_max.",
    )
    engine_idle_threads_max: Whole = limit(
        8,
        1,
        1000,
        "Threads that each pool of the embedded engine keeps, or uses for its own work. Each holds three file descriptors.",
    )
    http_port: OptionalWhole = limit(
        8123,
        0,
        65_535,
        "Port on which `serve` answers ClickHouse's HTTP protocol from the embedded engine, read-only, with a key as password."
        " none: no such port. 0: any free port. If the port is in use, there is a warning, and everything else runs.",
    )
    http_host: Text = Field(
        default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on for http_port."
    )
    http_connections_max: Whole = limit(
        64, 1, 100_000, "Most connections at once on http_port, and half as many queries of one tenant. More: 503."
    )
    http_overdue_max: Whole = limit(
        8,
        0,
        1000,
        "Queries on http_port that may run past query_time_max_s, since the engine can't end them, without keeping others"
        " waiting. Each takes CPU until it ends by itself.",
    )
    query_time_max_s: Number = limit(60, 0.1, 86_400, "Most seconds that a query may take.")
    query_memory_bytes_max: Bytes = limit(1 * GIB, 16 * MIB, 1024 * GIB, "Most memory of a query, in bytes.")
    query_rows_max: Whole = limit(1_000_000, 1, 10_000_000_000, "Most rows in the result of a query.")
    query_result_bytes_max: Bytes = limit(256 * MIB, 1 * KIB, 64 * GIB, "Most bytes in the result of a query.")


class SchemaSection(Section):
    """Columns, indexes and tables beside the fixed ones. A change takes effect at the next start, or by `schema apply`."""

    materialized_attributes: AttributeKeys = Field(
        default="k8s.cluster.name,k8s.container.name,k8s.deployment.name,k8s.namespace.name,k8s.node.name,k8s.pod.name,"
        "k8s.pod.uid,deployment.environment.name",
        description="Attributes of a log's resource that are also columns, __otel_materialized_KEY, which ClickStack finds.",
    )
    text_indexes: Literal["none", "body", "all"] = Field(
        default="none",
        description="Text indexes instead of bloom filters. body: for the text of logs. all: also for ids and attributes of"
        " logs and spans. A server must have version 26.2 or later.",
    )
    clickstack_rollups: bool = Field(
        default=False,
        description="Whether there are tables of the values of attributes, from which ClickStack fills its filters. Once they"
        " exist, each insert writes to them. false: they are dropped.",
    )
    clickstack_sessions: bool = Field(
        default=False,
        description="Whether there is a view hyperdx_sessions of the log records with an rrweb event, which ClickStack"
        " replays.",
    )


class Query(Section):
    """Queries: of the query command, which asks the running collector through a socket, of pages, and on store.http_port."""

    wait_s: Number = limit(
        30, 0, 3600, "Seconds that the query command waits until everything is stored that was acknowledged before the query."
    )
    page_wait_s: Number = limit(
        5, 0, 3600, "Seconds that pages of the API, and queries on store.http_port, wait in the same way."
    )
    recent_batches_max: Whole = limit(
        10_000, 0, 10_000_000, "Requests that each process remembers, so that it can report them before they are stored."
    )
    sql_bytes_max: Bytes = limit(1 * MIB, 1 * KIB, 64 * MIB, "Longest query, in bytes.")
    concurrent_max: Whole = limit(
        2,
        1,
        64,
        "Queries that run at once: so many of the query command, so many on store.http_port, and so many of pages. More wait."
        " On store.http_port a tenant has at most half.",
    )
    body_timeout_s: Number = limit(10, 0.1, 3600, "Seconds within which a whole query must arrive.")


class DeadLettersSection(Section):
    """Dead letters: what was received and can't be stored. Each tenant has its own caps, in each process of a gateway."""

    items_per_minute_max: Whole = limit(
        10_000,
        0,
        10_000_000,
        "Rejected items that are kept in a minute. A request that exceeds this is answered 429 until the next minute, and"
        " nothing of it is kept. 0: rejected items are only counted.",
    )
    bytes_per_minute_max: Bytes = limit(
        64 * MIB,
        0,
        64 * GIB,
        "Bytes of rejected items that are kept in a minute. Beyond this, and with 0, as for items_per_minute_max.",
    )
    payload_bytes_max: Bytes = limit(
        64 * KIB,
        1 * KIB,
        4 * MIB,
        "Bytes that are kept from the beginning of a body of a refused request, or of an item that fits no message.",
    )
    requests_bytes_per_minute_max: Bytes = limit(
        2 * MIB,
        0,
        64 * GIB,
        "Bytes of bodies of refused requests that are kept in a minute, within bytes_per_minute_max. Beyond this, 1 KiB of each"
        " further one is kept.",
    )
    retention_days: OptionalWhole = limit(30, 1, DAYS_MAX, "Days for which dead letters are kept. none: forever.")
