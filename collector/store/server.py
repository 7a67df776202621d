"""Connects to a ClickHouse server over HTTP or HTTPS, by clickhouse_connect.

An error names the setting to change (the URL, the user, the database, the certificates, the version), and never the password.

Invariants:
1. A failure that can end by itself is StoreUnavailable (test_failures_pass).
2. A server that accepts connections and does not answer delays its first user by at most connect_timeout_s. A start then
   continues without it (test_a_server_that_hangs_is_not_waited_for).
3. A failure that an operator has to correct is StoreMisconfigured (test_wrong_password, test_no_url, test_another_service).
"""

import logging
import math
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from clickhouse_connect.driver.httputil import get_pool_manager
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError, ReadTimeoutError

from collector.store.contract import StoreMisconfigured, StoreUnavailable
from collector.store.migrations import identifier, literal, on_cluster

# ClickHouse's errors that an operator has to correct, and what to change.
_REFUSALS: Final = {
    "AUTHENTICATION_FAILED": "user and password",
    "REQUIRED_PASSWORD": "the password",
    "WRONG_PASSWORD": "the password",
    "UNKNOWN_USER": "the user",
    "IP_ADDRESS_NOT_ALLOWED": "from where the user may connect",
    "ACCESS_DENIED": "the user's grants (docs/use/store.md has a list)",
    "DATABASE_ACCESS_DENIED": "the user's grants (docs/use/store.md has a list)",
    "UNKNOWN_DATABASE": "the database",
    "ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND": "the server's user_directories: users are kept where one is writable",
    "ACCESS_STORAGE_READONLY": "the server's user_directories: the user is defined in a file, so no statement changes it",
    "READONLY": "the user's profile: it must not be read-only",
    "SETTING_CONSTRAINT_VIOLATION": "the constraints of the user's profile",
    "CLUSTER_DOESNT_EXIST": "the cluster: system.clusters has their names",
    "NO_ZOOKEEPER": "the server's configuration: a cluster needs ClickHouse Keeper",
    "NO_ELEMENTS_IN_CONFIG": "the server's configuration: a cluster needs the macros shard and replica",
}
# The driver logs every network error with its traceback. The collector logs each once, in a line, where it tries again.
_NOISY: Final = "clickhouse_connect.driver._backend.http_sync"
_MESSAGE_CHARACTERS_MAX: Final = 1000
_CONNECTIONS_MAX: Final = 16


class ServerOptions(NamedTuple):
    """The address of a server, and our user. Times are in seconds, rounded up, since clickhouse_connect takes integers."""

    url: str
    user: str
    password: str
    database: str
    ca_file: Path | None
    verify: bool
    connect_timeout_s: float
    request_timeout_s: float

    def __repr__(self) -> str:
        return f"ClickHouse at {self.url}, user {self.user}, database {self.database}"

    def connect(self) -> Client:
        """Return a client without a session, for any number of threads. Raises StoreUnavailable, StoreMisconfigured."""
        url, port = _parts(self.url)
        self._check_certificates()
        logging.getLogger(_NOISY).setLevel(logging.ERROR)
        # A separate pool is used, so that the driver reads no proxies from the environment, and the pool can be closed.
        pool = get_pool_manager(
            ca_cert=str(self.ca_file) if self.ca_file else None, verify=self.verify, maxsize=_CONNECTIONS_MAX
        )
        try:
            self._check_that_it_answers(pool, url, port)
            with self.errors():
                client = clickhouse_connect.get_client(
                    interface=url.scheme,
                    host=url.hostname,
                    port=port,
                    proxy_path=url.path,
                    username=self.user,
                    password=self.password,
                    # The database may not exist yet. The driver's first queries are about the server.
                    database=None,
                    compress=False,
                    query_retries=0,  # the writer's loop retries failures, since it can wait
                    connect_timeout=math.ceil(self.connect_timeout_s),
                    send_receive_timeout=math.ceil(self.request_timeout_s),
                    # An insert whose answer was lost would still hold a session's lock, and a session is on one server only.
                    autogenerate_session_id=False,
                    client_name="infrasage-collector",
                    show_clickhouse_errors="scrub",
                    pool_mgr=pool,
                )
            if "format_schema_source" not in client.server_settings:
                raise StoreMisconfigured(
                    f"{self} has version {client.server_version}, which can't be handed a format with an insert: 25.6 can"
                )
        except BaseException:
            pool.clear()
            raise
        client.database = self.database
        return client

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise ClickHouse's errors, and the network's, as StoreMisconfigured or StoreUnavailable."""
        try:
            yield
        except (ClickHouseError, OSError) as error:
            # An error without ClickHouse's number did not come from ClickHouse.
            name = error.name if isinstance(error, DatabaseError) else None
            tls = _tls_error(error)
            if name in _REFUSALS:
                raise StoreMisconfigured(f"{self} refuses: {describe(error)}; to be changed: {_REFUSALS[name]}") from error
            if tls is not None:
                what = "to be changed: the URL or the certificates (ca_file)"
                raise StoreMisconfigured(f"{self} can't be trusted: {one_line(tls)}; {what}") from error
            if "Unexpected response" in str(error) or _NOT_CLICKHOUSE.search(str(error)):
                raise StoreMisconfigured(
                    f"{self}: the answer is not from ClickHouse's HTTP interface: {describe(error)}"
                ) from error
            raise StoreUnavailable(f"{self}: {describe(error)}") from error

    def _check_that_it_answers(self, pool: PoolManager, url: SplitResult, port: int) -> None:
        """Raise StoreUnavailable if the server does not answer a ping within connect_timeout_s. The driver's first query would
        wait as long as an insert may. Ignore other errors, since the driver's first query raises them."""
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        wait = Timeout(connect=self.connect_timeout_s, read=self.connect_timeout_s)
        try:
            pool.request("GET", f"{url.scheme}://{host}:{port}{url.path.rstrip('/')}/ping", timeout=wait, retries=False)
        except ReadTimeoutError as error:
            raise StoreUnavailable(
                f"{self}: no answer to a ping within {self.connect_timeout_s:g} s (clickhouse.connect_timeout_s)"
            ) from error
        except HTTPError:
            pass

    def _check_certificates(self) -> None:
        if self.ca_file is None:
            return
        try:
            ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # SSLError is one
            raise StoreMisconfigured(f"{self}: cannot read the certificates in {self.ca_file}: {error}") from error


def _parts(text: str) -> tuple[SplitResult, int]:
    """Return the parts of the URL, and its port. Raises StoreMisconfigured; the message does not contain the URL, which may
    have a password."""
    try:
        url = urlsplit(text)
        port = url.port or (8443 if url.scheme == "https" else 8123)
        usable = url.scheme in ("http", "https") and url.hostname and url.username is None
    except ValueError:
        usable = False
    if not usable:
        raise StoreMisconfigured("the URL of ClickHouse must be http://HOST:PORT or https://HOST:PORT, without a user")
    return url, port


_NOT_CLICKHOUSE: Final = re.compile(r"received HTTP status (?:4(?!08|29)\d\d|501)")
# TLS errors that waiting cannot fix: a certificate that can't be verified, and a server that does not speak TLS.
_TLS_REASONS: Final = frozenset(["CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"])


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """Return the TLS error that waiting cannot fix, from an error's chain of causes; None if there is none."""
    seen: BaseException | None = error
    while seen is not None:
        for one in (seen, getattr(seen, "reason", None), *seen.args):
            if isinstance(one, ssl.SSLError) and one.reason in _TLS_REASONS:
                return one
        seen = seen.__cause__ or seen.__context__
    return None


def describe(error: BaseException) -> str:
    """Return an error's message on one line, without the request. For network errors that is the reason in the cause: the
    driver's own message has less, and the cause's repeats the whole URL."""
    cause = error.__cause__
    source: object = error
    if cause is not None and not getattr(error, "code", None):
        source = getattr(cause, "reason", None) or cause
    text = re.sub(r"^Received ClickHouse exception, code: \d+, server response: ", "", " ".join(str(source).split()))
    return text if len(text) <= _MESSAGE_CHARACTERS_MAX else text[:_MESSAGE_CHARACTERS_MAX] + "…"


def one_line(error: BaseException) -> str:
    """Return the whole message of an error on one line."""
    return " ".join(str(error).split())


def has_database(client: Client, name: str) -> bool:
    """Return whether the database exists. system.databases shows it; any statement that names it would fail. Raises
    ClickHouseError."""
    found = client.raw_query(
        f"SELECT count() FROM system.databases WHERE name = {literal(name)}",  # noqa: S608 - quoted
        fmt="TabSeparated",
        use_database=False,
    )
    return bytes(found).strip() != b"0"


def make_database(client: Client, name: str, cluster: str) -> None:
    """Create the database if it does not exist. Raises ClickHouseError."""
    if not has_database(client, name):
        client.command(on_cluster(f"CREATE DATABASE IF NOT EXISTS {identifier(name)}", cluster), use_database=False)
