"""The sections of the settings for processes: gateway, writer, logging, shutdown, and audit."""

from typing import Literal

from pydantic import Field

from collector.config.values import GIB, MIB, Bytes, Number, Port, Section, Whole, limit


class Gateway(Section):
    """The gateway command."""

    workers: Whole = limit(1, 1, 256, "Processes that share the ports: about one for each core.")


class WriterSection(Section):
    """The writer, which stores the messages of the broker."""

    port: Port = Field(default=8081, description="Port of the writer command, for /healthz and /metrics. 0: any free port.")

    bytes_max: Bytes = limit(16 * MIB, 1, 1 * GIB, "Bytes in one insert. The embedded engine's memory grows with it.")
    row_bytes_max: Bytes = limit(
        128 * MIB,
        1 * MIB,
        64 * GIB,
        "Bytes of the rows of one insert, each with its resource and scope. ClickHouse needs a few times as much memory.",
    )
    refusals_max: Whole = limit(
        1000,
        1,
        1_000_000,
        "Refused inserts in one search for data that ClickHouse can't read. After that, whole records become dead letters.",
    )
    linger_ms: Number = limit(
        500,
        0,
        60_000,
        "Milliseconds from one insert of a topic to the next, unless the next is full. The first after a pause begins at once.",
    )
    retry_min_s: Number = limit(0.1, 0.001, 3600, "Seconds before a failed insert is tried again, at first; doubles each time.")
    retry_max_s: Number = limit(30, 0.001, 3600, "Seconds before a failed insert is tried again, at most.")


class Logging(Section):
    """The collector's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The lowest level that is logged.")
    requests: bool = Field(
        default=False,
        description="Whether each request is logged, at info: route, answer, tenant, key id, size, time, and how many items"
        " were accepted and rejected.",
    )
    senders_interval_s: Number = limit(
        10,
        0,
        86_400,
        "Least seconds between two lines about one tenant whose items or requests were rejected, repaired, refused or limited."
        " Each line has the reasons and an example. 0: no such lines.",
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="The form of a line. auto: console on a terminal, else json."
    )


class Shutdown(Section):
    """The shutdown at SIGTERM or SIGINT."""

    lame_duck_s: Number = limit(
        3,
        0,
        600,
        "Seconds after SIGTERM for which requests are still accepted, while /healthz and gRPC's health service report the end"
        " and answers ask clients to go elsewhere. 0: none. It is left out after SIGINT, or if no client was connected for 10"
        " s.",
    )
    timeout_s: Number = limit(
        15, 0.1, 3600, "Seconds after lame_duck_s within which requests in flight are finished and everything is closed."
    )


class Audit(Section):
    """Scheduled audits, which run in the process that writes to the store. They show the results of `audit` as metrics."""

    interval_s: Number = limit(
        3600, 0, 604_800, "Seconds from one audit to the next. Each judges the requests since the last. 0: never."
    )
    delay_s: Number = limit(
        300,
        1,
        86_400,
        "Seconds after which a request is judged: its records should be stored by then. Lag is not a difference.",
    )
