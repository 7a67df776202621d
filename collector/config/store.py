"""The sections of the store: ClickHouse, what an insert may take, queries, and dead letters."""

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
    """ClickHouse as a server, in the embedded engine's place. Without `url` there is none, and the rest is not used."""

    url: ServerUrl = Field(
        default="", description="Where its HTTP interface is. Empty: the embedded engine, in data_dir/store."
    )
    user: Text = Field(default="default", min_length=1, max_length=255, description="The user.")
    password: Secret = Field(default=None, description="The user's password. Never shown; see password_file.")
    password_file: OptionalLocation = Field(
        default=None, description="A file with the password, in its place; a line end at its end is not part of it."
    )
    database: Name = Field(
        default="default", min_length=1, max_length=128, description="The database of the tables; made if it does not exist."
    )
    cluster: Name = Field(
        default="", max_length=128, description="A cluster's name: tables are replicated, and made on all of it. Empty: none."
    )
    shards_cluster: Name = Field(
        default="",
        max_length=128,
        description="A cluster with the servers of every shard. `schema apply` makes tables on it that read all shards, in"
        " shards_database. Empty: none.",
    )
    shards_database: Name = Field(
        default="shards", min_length=1, max_length=128, description="The database of the tables that read all shards."
    )
    ca_file: OptionalLocation = Field(
        default=None, description="Certificates (PEM) that the server's is checked against. none: the usual authorities'."
    )
    verify: bool = Field(default=True, description="Whether the server's certificate is checked. false: anyone can pose as it.")
    insert_quorum: Quorum = Field(
        default=0, description="Replicas that must have an insert before it counts as stored. 0: one; auto: most of them."
    )
    connect_timeout_s: Number = limit(
        5, 0.1, 600, "Seconds within which a connection must be made, and the first ping answered."
    )
    request_timeout_s: Number = limit(
        300, 0.1, 86_400, "Seconds to wait for an answer. An insert without one is looked up before it is repeated."
    )


# Memory that the insert of one message may need, by the bytes of its rows: measured, docs/use/store.md.
INSERT_MEMORY_FACTOR: Final = 8


class StoreSection(Section):
    """The tables, and what a query may cost."""

    retention_days: OptionalWhole = limit(
        None,
        1,
        DAYS_MAX,
        "Days for which rows are kept. none: for ever. Receivers reject items that would be kept for less than three hours, so"
        " gateways need this section's days too.",
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
        description="Days for which all telemetry of single tenants is kept, whatever the other settings say. With any, merges"
        " remove rows, which costs more than to drop whole days.",
    )
    storage_policy: Name = Field(
        default="",
        max_length=128,
        description="Storage policy of the tables, from the server's configuration. Empty: the one that they have.",
    )
    cold_volume: Name = Field(
        default="", max_length=128, description="Volume of the storage policy for rows older than cold_after_days. Empty: none."
    )
    cold_after_days: OptionalWhole = limit(
        None, 1, DAYS_MAX, "Days after which rows move to cold_volume. none: they stay where they are."
    )
    fsync: bool = Field(
        default=True, description="Whether inserted parts are on disk, not only with the operating system, when an insert ends."
    )
    insert_memory_bytes_max: Bytes = limit(
        2 * GIB,
        64 * MIB,
        1024 * GIB,
        f"Memory that an insert may use, in bytes: at least {INSERT_MEMORY_FACTOR} times broker.message_row_bytes_max.",
    )
    engine_idle_threads_max: Whole = limit(
        8,
        1,
        1000,
        "Threads that each pool of the embedded engine keeps or uses for its own work; each holds three file descriptors.",
    )
    http_port: OptionalWhole = limit(
        8123,
        0,
        65_535,
        "Port on which `serve` answers ClickHouse's HTTP protocol over the embedded engine, read-only, with a key as password."
        " none: no such port. 0: any free port. In use: a warning, and everything else runs.",
    )
    http_host: Text = Field(
        default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on for http_port."
    )
    http_connections_max: Whole = limit(
        64, 1, 100_000, "Most connections at once on http_port; half as many queries of one tenant. More: 503."
    )
    http_overdue_max: Whole = limit(
        8,
        0,
        1000,
        "Queries on http_port that the engine can't end in query_time_max_s and that no longer keep others waiting. Each takes"
        " CPU until it ends by itself.",
    )
    query_time_max_s: Number = limit(60, 0.1, 86_400, "Seconds that a query may take.")
    query_memory_bytes_max: Bytes = limit(1 * GIB, 16 * MIB, 1024 * GIB, "Memory that a query may use, in bytes.")
    query_rows_max: Whole = limit(1_000_000, 1, 10_000_000_000, "Rows that a query may answer with.")
    query_result_bytes_max: Bytes = limit(256 * MIB, 1 * KIB, 64 * GIB, "Bytes that a query may answer with.")


class SchemaSection(Section):
    """What the tables have beside their fixed columns and indexes. A change is made at the next start, or by `schema apply`."""

    materialized_attributes: AttributeKeys = Field(
        default="k8s.cluster.name,k8s.container.name,k8s.deployment.name,k8s.namespace.name,k8s.node.name,k8s.pod.name,"
        "k8s.pod.uid,deployment.environment.name",
        description="Attributes of a log's resource that are columns too, __otel_materialized_KEY. ClickStack finds them.",
    )
    text_indexes: Literal["none", "body", "all"] = Field(
        default="none",
        description="Text indexes in place of bloom filters. body: of the text of logs. all: also of ids and attributes of logs"
        " and spans. A server must be of version 26.2 or newer.",
    )
    clickstack_rollups: bool = Field(
        default=False,
        description="Whether there are tables of the values of attributes, from which ClickStack fills its filters. Each insert"
        " writes to them from when they are made. false: they are dropped.",
    )
    clickstack_sessions: bool = Field(
        default=False,
        description="Whether there is a view hyperdx_sessions of the log records that have an rrweb event, which ClickStack"
        " replays.",
    )


class Query(Section):
    """The socket by which the query command asks the running collector."""

    wait_s: Number = limit(30, 0, 3600, "Seconds to wait, before a query, until everything acknowledged before it is stored.")
    page_wait_s: Number = limit(5, 0, 3600, "The same, for pages of the API that tell of what is stored.")
    recent_batches_max: Whole = limit(
        10_000, 0, 10_000_000, "Requests that each process remembers, to tell of them before they are in the store."
    )
    sql_bytes_max: Bytes = limit(1 * MIB, 1 * KIB, 64 * MIB, "Longest query, in bytes.")
    concurrent_max: Whole = limit(
        2,
        1,
        64,
        "Queries answered at once: of the query command, as many on store.http_port, and as many of pages. More wait. Of those"
        " on store.http_port a tenant has at most half.",
    )
    body_timeout_s: Number = limit(10, 0.1, 3600, "Seconds within which a whole query must have arrived.")


class DeadLettersSection(Section):
    """What was received and can't be stored. Caps are each tenant's, in each process of a gateway."""

    items_per_minute_max: Whole = limit(
        10_000,
        0,
        10_000_000,
        "Rejected items that are kept in a minute. A request with more of them is answered 429 until the next minute, and"
        " nothing of it is kept. 0: none is kept, and they are only counted.",
    )
    bytes_per_minute_max: Bytes = limit(
        64 * MIB,
        0,
        64 * GIB,
        "Bytes of rejected items that are kept in a minute. Past it and with 0: as items_per_minute_max.",
    )
    payload_bytes_max: Bytes = limit(
        64 * KIB,
        1 * KIB,
        4 * MIB,
        "Bytes that are kept of the body of a request that was refused as a whole: its beginning. Of a tenant that had 2 MiB of"
        " such bodies kept in a minute, by a process, 1 KiB of each further one is.",
    )
    retention_days: OptionalWhole = limit(30, 1, DAYS_MAX, "Days for which dead letters are kept. none: for ever.")
