"""Insert payloads: the tables that a topic's payloads go to, their formats, and the settings that decide the blocks.

Payloads are inserted as the bytes that arrived, and the engine parses them.

A repetition must be cut into blocks exactly as the first attempt was, or its tokens would not match. So nothing runs in
parallel. Every setting that decides where a block ends is sent with each insert, since the engine's defaults may change
between the two attempts.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.summary import QuerySummary

from adapters.codec.wire import length_of
from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Payload
from collector.store.migrations import DEAD_LETTERS_FORMAT, LOGS_FORMAT, METRICS_FORMAT, TRACES_FORMAT, literal

Settings = Mapping[str, str | int]


class InsertTarget(NamedTuple):
    """The table into which a topic's payloads are inserted, and the format by which they are parsed."""

    table: str
    format: Path


LANDING: Final = {
    METRICS_TOPIC: InsertTarget("landing_resource_metrics", METRICS_FORMAT),
    LOGS_TOPIC: InsertTarget("landing_resource_logs", LOGS_FORMAT),
    TRACES_TOPIC: InsertTarget("landing_resource_spans", TRACES_FORMAT),
    DEAD_LETTERS_TOPIC: InsertTarget("landing_dead_letters", DEAD_LETTERS_FORMAT),
}
# The format for many batches: an insert is one message after its length, and its content is all batches together.
_FORMAT: Final = "ProtobufList"

MERGED_INDEXES: Final = (
    *(
        f"{kind}_{whose}attr_{what}"
        for kind in ("idx", "text")
        for whose in ("res_", "scope_", "log_", "span_", "")
        for what in ("key", "value")
    ),
    "idx_lower_body",
    "text_lower_body",
    "idx_lower_span_name",
    "idx_series",
)
"""Indexes that are made when parts are merged, and not at each insert. docs/adr/0044 has the reasons."""

SETTINGS: Final[Settings] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_insert": "enable",
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_threads": 1,
    "max_insert_threads": 1,
    "input_format_parallel_parsing": 0,
    "parallel_view_processing": 0,
    "max_block_size": 65_409,
    "max_insert_block_size": 1_048_449,
    "max_insert_block_size_bytes": 0,
    "use_strict_insert_block_limits": 0,
    "input_format_max_block_size_bytes": 0,
    "input_format_max_block_wait_ms": 0,
    "min_insert_block_size_rows": 1_048_449,
    "min_insert_block_size_bytes": 268_402_944,
    "min_insert_block_size_rows_for_materialized_views": 1_048_449,
    "min_insert_block_size_bytes_for_materialized_views": 268_402_944,
    # Data of many days at once is slow, but it is no reason to refuse it.
    "max_partitions_per_insert_block": 0,
    # An incomplete payload does not count as complete, and no bad record is skipped silently.
    "input_format_connection_handling": 0,
    "input_format_allow_errors_num": 0,
    "input_format_allow_errors_ratio": 0,
    "exclude_materialize_skip_indexes_on_insert": ",".join(MERGED_INDEXES),
}
_TOKEN: Final = "insert_deduplication_token"  # noqa: S105 - a setting's name

_PIECE_BYTES_MIN: Final = 64 * 1024


class Insert(Protocol):
    """Stores payloads of a topic under a token."""

    def __call__(
        self, topic: str, payloads: Sequence[Payload], token: str, into: str | None = None, session: str = ""
    ) -> QuerySummary:
        """Insert payloads. `into` is a table to use in place of the topic's landing table, with the same columns. `session` is
        the session of the server to which that table belongs. Raises ClickHouseError, OSError."""


def embedded_inserts(client: Client, settings: Settings) -> Insert:
    """Return an insert by the driver of the embedded engine, which reads the format's file. If the format were given as text,
    the engine would write it into the current directory."""

    def insert(topic: str, payloads: Sequence[Payload], token: str, into: str | None = None, session: str = "") -> QuerySummary:
        assert not session, "a client of the embedded engine is a session"
        table, format_ = LANDING[topic]
        schema = {"format_schema_source": "file", "format_schema": f"{format_}:Record"}
        length = length_of(sum(map(len, payloads)))
        pieces = map(bytes, _pieces([length, *payloads]))  # the driver accepts no other type
        block = cast("Generator[bytes]", pieces)
        with_token = {**settings, **schema, _TOKEN: token}
        return client.raw_insert(into or table, insert_block=block, fmt=_FORMAT, settings=with_token)

    return insert


def server_inserts(client: Client, settings: Settings) -> Insert:
    """Return an insert by requests whose body has the statement with all its settings and the format's text, and then the data.
    In the URL the statement would be percent-encoded for each insert, at the cost of a megabyte of data, and be too long for
    some proxies."""
    begun = {topic: _begun(landing, settings) for topic, landing in LANDING.items()}
    # The answer begins when the insert is done, so its status is that of the insert.
    in_url: Settings = {"wait_end_of_query": 1, "send_progress_in_http_headers": 0}

    def insert(topic: str, payloads: Sequence[Payload], token: str, into: str | None = None, session: str = "") -> QuerySummary:
        payload_bytes = sum(map(len, payloads))
        statement = begun[topic] if into is None else _begun(LANDING[topic]._replace(table=into), settings)
        head = f"{statement}, {_TOKEN} = {literal(token)} FORMAT {_FORMAT}\n".encode() + length_of(payload_bytes)
        size = {"Content-Length": str(len(head) + payload_bytes)}
        block = cast("Generator[bytes]", _pieces([head, *payloads]))
        # Without a table the driver adds no statement of its own.
        settings_ = {**in_url, "session_id": session} if session else dict(in_url)
        return client.raw_insert("", insert_block=block, settings=settings_, transport_settings=size)

    return insert


def _begun(landing: InsertTarget, settings: Settings) -> str:
    """Return the statement up to the last of its settings."""
    text = format_text(landing.format)
    schema = {"format_schema_source": "string", "format_schema": text, "format_schema_message_name": "Record"}
    assignments = ", ".join(
        f"{name} = {literal(value) if isinstance(value, str) else value}" for name, value in {**settings, **schema}.items()
    )
    return f"INSERT INTO {landing.table} SETTINGS {assignments}"


def format_text(path: Path) -> str:
    """Return the text of a format's file without comments and spaces."""
    text = re.sub(r"//[^\n]*", "", path.read_text("utf-8"))
    return re.sub(r"\s*([{};=])\s*", r"\1", re.sub(r"\s+", " ", text)).strip()


def _pieces(payloads: Sequence[Payload]) -> Iterator[Payload]:
    """Yield the same bytes, with small payloads joined, since each piece is a system call, and large ones as they are."""
    small: list[Payload] = []
    size = 0
    for payload in payloads:
        if len(payload) < _PIECE_BYTES_MIN:
            small.append(payload)
            size += len(payload)
            if size < _PIECE_BYTES_MIN:
                continue
        if small:
            yield b"".join(small)
            small, size = [], 0
        if len(payload) >= _PIECE_BYTES_MIN:
            yield payload
    if small:
        yield b"".join(small)
