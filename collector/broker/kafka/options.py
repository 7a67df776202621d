"""Options of the connection to Kafka, and the errors that explain why Kafka cannot be reached.

No message and no log line contains a secret: the password is left out of the options' text, and aiokafka's debug lines, which
show it, are off.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown

T = TypeVar("T")

# aiokafka's debug lines show requests, and SASL/PLAIN's request has the password. Its errors come several times a second while
# a broker is away; this program logs the same, once.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class KafkaUnusable(Exception):
    """Kafka can't be used as it is. The message contains the reason and the remedy."""


class KafkaUnavailable(KafkaUnusable):
    """Kafka can't be reached, or does not let us in, which may pass by itself."""


@dataclass(frozen=True, kw_only=True)
class KafkaOptions:
    """The values of the settings [kafka]."""

    bootstrap: Sequence[str]  # host:port of some brokers
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None  # None: the system's
    cert_file: Path | None = None  # ours, for mutual TLS
    key_file: Path | None = None  # None: it is in cert_file
    client_id: str = "infrasage-collector"
    group_id: str = "infrasage-writer"
    create_topics: bool = True
    topic_partitions: int = 6  # of topics that are created
    topic_replication: int = 0  # of topics that are created; 0: as many as there are brokers, at most 3
    message_bytes_max: int = 512 * 1024  # the largest payload; topics must take it
    message_bytes_setting: str = "broker.message_bytes_max"  # where that number is from
    value_bytes_max: int = 64 * 1024 * 1024  # for messages that others wrote: only the beginning of a longer value is read
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    requests_in_flight_max: int = 2  # to each broker
    linger_ms: float = 0.0  # how long a batch that is not full waits for more
    waiting_bytes_max: int = 64 * 1024 * 1024  # not yet acknowledged; past it: BrokerDown
    append_timeout_s: float = 2.0
    request_timeout_s: float = 10.0
    answer_timeout_s: float = 3.0  # for requests that a broker answers at once; later, it is away, and others are asked
    metadata_refresh_s: float = 5.0  # the greatest age of the metadata about brokers, leaders and partitions
    topic_brokers_wait_s: float = 120.0  # how long topics are not created while brokers are missing
    start_timeout_s: float = 30.0  # how long `open` tries to reach Kafka
    session_timeout_s: float = 10.0  # a writer that sends no heartbeat for this time loses its partitions


def connection(options: KafkaOptions) -> dict[str, Any]:
    """Return the arguments that every aiokafka client takes, but for the servers. Raises KafkaUnusable."""
    return {
        "client_id": options.client_id,
        "request_timeout_ms": int(options.request_timeout_s * 1000),
        "security_protocol": options.security,
        "ssl_context": _ssl_context(options) if options.security.endswith("SSL") else None,
        "sasl_mechanism": options.sasl_mechanism,
        "sasl_plain_username": options.username,
        "sasl_plain_password": options.password,
    }


def _ssl_context(options: KafkaOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file is not None:
            # A password, so that an encrypted key is an error: else OpenSSL would ask for it on the terminal.
            context.load_cert_chain(options.cert_file, options.key_file, password="")
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(file) for file in (options.ca_file, options.cert_file, options.key_file) if file)
        raise KafkaUnusable(f"cannot use the certificates for Kafka ({files}): {error}") from error
    return context


async def _reason(options: KafkaOptions) -> str:
    """Ask each broker once more. Return why none of them can be reached."""

    async def ask(server: str) -> str | None:
        host, _, port = server.rpartition(":")
        try:
            async with asyncio.timeout(options.answer_timeout_s):
                made = await create_conn(host.strip("[]"), int(port), **connection(options))
        except (KafkaError, OSError, TimeoutError, ValueError) as error:
            return text(error)
        made.close()
        return None

    reasons = dict(zip(options.bootstrap, await asyncio.gather(*map(ask, options.bootstrap)), strict=True))
    for server, reason in reasons.items():
        if reason is None:
            return f"{server} answers, but the cluster is not ready"
    return "; ".join(f"{server}: {reason}" for server, reason in reasons.items())


def text(error: BaseException) -> str:
    """Return an error's message, or a description if it has none."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return str(error) or type(error).__name__


async def until_started(options: KafkaOptions, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Try for as long as a start may take, at least once. Raises KafkaUnusable, KafkaUnavailable."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.start_timeout_s
    while True:
        try:
            # Joining a group may take until the session of a member that has died expires.
            async with asyncio.timeout(options.request_timeout_s + options.session_timeout_s):
                return await attempt()
        except (KafkaError, OSError, TimeoutError, BrokerDown) as error:
            if loop.time() >= deadline:
                reason = text(error) if isinstance(error, BrokerDown) else await _reason(options)
                raise KafkaUnavailable(f"cannot use Kafka at {', '.join(options.bootstrap)}: {reason}") from error
            await asyncio.sleep(0.2)
