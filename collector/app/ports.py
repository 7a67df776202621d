"""Where the collector listens, and what it prints when it is ready.

Invariants:
1. A port that cannot be bound is reported by its setting, before anything is created or opened
   (test_a_port_in_use_is_told_with_its_flag).
"""

import errno
import ipaddress
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from collector.api.metrics_page import METRICS_PATH
from collector.config.reference import FLAGS
from collector.config.settings import Settings
from collector.receivers.http.page_gate import HEALTH_PATH
from collector.runtime.errors import CannotRun
from collector.runtime.version import VERSION

log = structlog.get_logger(__name__)

RECORD: Final = (
    '{"service_id": "demo", "metric_name": "cpu_usage_percent", "value": 87.3, "timestamp": "\'$(date -u +%FT%TZ)\'"}'
)


def ports(settings: Settings) -> dict[str, int]:
    """Return the ports of the receivers, by the names of their settings."""
    return {"http.port": settings.http.port, "http.otlp_port": settings.http.otlp_port, "grpc.port": settings.grpc.port}


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches that address; for a name, whether that holds for all its addresses."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:  # which is said where it is listened on
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def takes_anonymous(settings: Settings, *, by_default: bool) -> bool:
    """Return whether records may come without a key. `by_default`: the command lets them where nobody has said otherwise."""
    return settings.tenants.anonymous == "yes" or (settings.tenants.anonymous == "auto" and by_default)


def warn_of_anonymous(settings: Settings, *, anonymous_by_default: bool) -> None:
    """Say in the log where other machines may send without a key, and how to change that."""
    if takes_anonymous(settings, by_default=anonymous_by_default) and not is_loopback(settings.host):
        log.warning(
            "anyone who can reach this address can send without an API key; to require keys set tenants.anonymous to no"
            " (INFRASAGE_TENANTS__ANONYMOUS=no) and make one for each sender with `keys create`",
            host=settings.host,
            anonymous_tenant=settings.tenants.anonymous_tenant,
            anonymous_plan=settings.tenants.anonymous_plan,
        )


def writer_ports(settings: Settings) -> dict[str, int]:
    """The writer's one, by the name of its setting."""
    return {"writer.port": settings.writer.port}


def check_port(key: str, host: str, port: int) -> None:
    """Try to listen there, so that what is wrong is known at once, and by its name. Raises CannotRun."""
    _bound(key, host, port, share=False).close()


class SharedPorts:
    """Ports of other processes: held, though not listened on, from construction until `close`.

    So port 0 is the same free port for all of them, also for one that replaces another. `wanted`: by the names of their
    settings. Raises CannotRun.
    """

    def __init__(self, settings: Settings, wanted: Mapping[str, int]) -> None:
        self._sockets: Final[list[socket.socket]] = []
        self._ports: Final[dict[str, int]] = {}
        for key, port in wanted.items():
            # First without sharing: another collector's processes would let us have it, and take half of what comes.
            check_port(key, settings.host, port)
            bound = _bound(key, settings.host, port, share=True)
            self._sockets.append(bound)
            self._ports[key] = bound.getsockname()[1]

    def settings(self, settings: Settings) -> Settings:
        """Return `settings` with the ports that are held."""
        for key, port in self._ports.items():
            section, _, name = key.partition(".")
            settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update={name: port})})
        return settings

    def close(self) -> None:
        for bound in self._sockets:
            bound.close()


def _bound(key: str, host: str, port: int, *, share: bool) -> socket.socket:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(address[0], socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address[4])
        except BaseException:
            listener.close()
            raise
    except socket.gaierror as error:
        raise CannotRun(f"cannot listen on {host}: {error.strerror}; --host names another address") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotRun(f"port {port} of {host} is in use by another program; {FLAGS[key]} names another") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise CannotRun(f"{host} is not an address of this machine; --host names another") from error
        raise CannotRun(f"cannot listen on port {port} of {host}: {error.strerror}; {FLAGS[key]} names another") from error
    return listener


def announcement(
    settings: Settings,
    http_port: int,
    otlp_port: int,
    grpc_port: int,
    *,
    stores: bool = True,
    admin_key: str | None = None,
    waits_for: str | None = None,
    clickhouse_port: int | None = None,
) -> str:
    """What serve and gateway print: where everything is, and a line to try it with. `stores`: the process has a store.

    `admin_key`: one that was made just now; nobody can show it again. `waits_for`: why Kafka can't be reached, if it can't.
    `clickhouse_port`: where ClickHouse's protocol is answered; None: nowhere.
    """
    listening = url_host(settings.host)
    # Where it listens on every address, this machine's own is one of them.
    own = url_host({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host))  # noqa: S104  # compared, not bound
    scheme = _scheme(settings)
    identity = " --cert FILE --key FILE" if settings.tls.client_ca_file is not None else ""
    lines = [
        _heading("collector", waits_for, "Requests are answered with 503 until then."),
        f"  HTTP API        {scheme}://{listening}:{http_port}",
        f"  OTLP over HTTP  {scheme}://{listening}:{otlp_port}",
        f"  OTLP over gRPC  {scheme + '://' if scheme == 'https' else ''}{listening}:{grpc_port}",
        *_clickhouse_place(settings, clickhouse_port),
        *_places(settings, stores=stores),
        *([f"  admin key       {admin_key}   (shown this once; `keys create` makes others)"] if admin_key else []),
        "Try it:",
        f"  curl{identity} {scheme}://{own}:{http_port}/api/v1/telemetry -H 'Content-Type: application/json' -d '{RECORD}'",
        *([f"  {_ask_for_it(settings)}"] if stores else []),
    ]
    return "\n".join(lines)


def writer_announcement(settings: Settings, port: int, waits_for: str | None = None) -> str:
    """Return what writer prints. `waits_for`: why Kafka can't be reached, if it can't."""
    lines = [
        _heading("writer", waits_for, "Nothing is stored until then."),
        f"  health          {_scheme(settings)}://{url_host(settings.host)}:{port}{HEALTH_PATH}",
        f"  metrics         {_scheme(settings)}://{url_host(settings.host)}:{port}{METRICS_PATH}",
        *_places(settings, stores=True),
    ]
    return "\n".join(lines)


def reached_announcement(name: str) -> str:
    """Return what `collector` or `writer` prints when Kafka, which it had to wait for, is reached."""
    return f"InfraSage {name} {VERSION} is ready: Kafka is reached."


def _heading(name: str, waits_for: str | None, meanwhile: str) -> str:
    """The first line. Without Kafka it is not ready, and does not say so."""
    if waits_for is None:
        return f"InfraSage {name} {VERSION} is ready."
    return f"InfraSage {name} {VERSION} waits for Kafka: {waits_for}. {meanwhile}"


def _scheme(settings: Settings) -> str:
    return "https" if settings.tls.cert_file is not None else "http"


def _clickhouse_place(settings: Settings, port: int | None) -> list[str]:
    """Where ClickHouse's protocol is answered, if it is."""
    if port is None:
        return []
    place = f"{_scheme(settings)}://{url_host(settings.store.http_host)}:{port}"
    return [f"  ClickHouse HTTP {place}   (read-only; password: a key that reads)"]


def _places(settings: Settings, *, stores: bool) -> list[str]:
    """Where what is received goes, a line for each place."""
    lines = []
    if settings.kafka.bootstrap:
        lines.append(f"  Kafka           {settings.kafka.bootstrap}")
    if stores and settings.clickhouse.url:
        lines.append(f"  ClickHouse      {settings.clickhouse.url}")
    if stores and not (settings.kafka.bootstrap and settings.clickhouse.url):
        lines.append(f"  data            {settings.data_dir.resolve()}")
    if not stores:
        lines.append(f"  processes       {settings.gateway.workers}")
    return lines


def _ask_for_it(settings: Settings) -> str:
    where = ["--clickhouse", settings.clickhouse.url] if settings.clickhouse.url else ["--data-dir", str(settings.data_dir)]
    # As it was called: from .venv/bin it is not on the PATH.
    program = sys.argv[0] if Path(sys.argv[0]).name == "infrasage-collector" else "infrasage-collector"
    return shlex.join([program, "query", "SELECT * FROM telemetry", *where])


def url_host(host: str) -> str:
    """Return the host as a URL needs it."""
    return f"[{host}]" if ":" in host else host
