"""The addresses on which the collector listens, and the announcement that it prints when it is ready.

Invariants:
1. A port that cannot be bound is reported by its setting, before anything is created or opened
   (test_a_port_in_use_is_reported_with_its_flag).
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
from collector.config.places import Place, TcpPlace, UnixPlace, read_places
from collector.config.reference import FLAGS
from collector.config.settings import Settings
from collector.receivers.http.page_gate import HEALTH_PATH
from collector.receivers.transport.listeners import UnixListener, bind_tcp, remove_stale
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
    """Return whether only this machine can reach these addresses. All addresses of a name have to be loopback."""
    return all(map(_is_loopback, host.split(",")))


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:  # reported when the collector listens on it
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def is_local(settings: Settings) -> bool:
    """Return whether only this machine can reach the receivers."""
    further = [place.host for places in listens(settings).values() for place in places if isinstance(place, TcpPlace)]
    return is_loopback(",".join([settings.host, *further]))


def takes_anonymous(settings: Settings, *, by_default: bool) -> bool:
    """Return whether records are accepted without a key. `by_default` is what the command does for tenants.anonymous = auto."""
    return settings.tenants.anonymous == "yes" or (settings.tenants.anonymous == "auto" and by_default)


def warn_of_anonymous(settings: Settings, *, anonymous_by_default: bool) -> None:
    """Log a warning if other machines can send without a key. It says how to require keys."""
    if takes_anonymous(settings, by_default=anonymous_by_default) and not is_local(settings):
        log.warning(
            "anyone who can reach this address can send without an API key; to require keys set tenants.anonymous to no"
            " (INFRASAGE_TENANTS__ANONYMOUS=no) and make one for each sender with `keys create`",
            host=settings.host,
            anonymous_tenant=settings.tenants.anonymous_tenant,
            anonymous_plan=settings.tenants.anonymous_plan,
        )


def writer_ports(settings: Settings) -> dict[str, int]:
    """Return the writer's port, by the name of its setting."""
    return {"writer.port": settings.writer.port}


def listens(settings: Settings) -> dict[str, tuple[Place, ...]]:
    """Return the further addresses and Unix sockets of the receivers, by the names of their settings."""
    return {
        "http.listen": read_places(settings.http.listen),
        "http.otlp_listen": read_places(settings.http.otlp_listen),
        "grpc.listen": read_places(settings.grpc.listen),
    }


def check_ports(settings: Settings) -> None:
    """Try to bind every port and Unix socket of the receivers, so that a wrong setting is reported at once. Raises
    CannotRun."""
    for key, port in ports(settings).items():
        check_port(key, settings.host, port)
    for key, places in listens(settings).items():
        for place in places:
            if isinstance(place, TcpPlace):
                check_port(key, place.host, place.port)
            else:
                _check_file(key, place)


def check_port(key: str, host: str, port: int) -> None:
    """Try to bind a port, and release it. `key` is the setting that the error names. Raises CannotRun if the port cannot be
    bound."""
    for bound in _bound(key, host, port, share=False):
        bound.close()


class SharedPorts:
    """Binds the ports on which the workers listen, without listening on them, from construction until `close`.

    So port 0 is the same free port for all workers, also for a worker that replaces another. `requested` has the ports of
    settings.host, and `further` the other addresses, by the names of their settings. Raises CannotRun."""

    def __init__(self, settings: Settings, requested: Mapping[str, int], further: Mapping[str, tuple[Place, ...]]) -> None:
        self._sockets: Final[list[socket.socket]] = []
        self._ports: Final[dict[str, int]] = {}
        for key, port in requested.items():
            self._ports[key] = self._hold(key, settings.host, port)
        for key, places in further.items():
            for place in places:
                if isinstance(place, TcpPlace):
                    self._hold(key, place.host, place.port)

    def _hold(self, key: str, host: str, port: int) -> int:
        # First bind it without sharing. Otherwise it could be shared with another collector, which would get half of the
        # connections.
        check_port(key, host, port)
        bound = _bound(key, host, port, share=True)
        self._sockets.extend(bound)
        held: int = bound[0].getsockname()[1]
        return held

    def settings(self, settings: Settings) -> Settings:
        """Return `settings` with the ports that are bound."""
        for key, port in self._ports.items():
            section, _, name = key.partition(".")
            settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update={name: port})})
        return settings

    def close(self) -> None:
        for bound in self._sockets:
            bound.close()


class UnixSockets:
    """Binds the Unix sockets of the receivers, from construction until `close`.

    `inherited` has, by path, the descriptors of sockets that the supervisor has bound. The supervisor also removes their files.
    Raises CannotRun."""

    def __init__(self, settings: Settings, inherited: Mapping[str, int] | None = None) -> None:
        self._made: Final[list[UnixListener]] = []
        self._sockets: Final[dict[str, list[tuple[Path, socket.socket]]]] = {}
        mode = int(settings.unix_socket_mode, 8)
        try:
            for key, places in listens(settings).items():
                self._sockets[key] = [
                    (place.path, self._open(key, place, mode, inherited)) for place in places if isinstance(place, UnixPlace)
                ]
        except BaseException:
            self.close()
            raise

    def of(self, *keys: str) -> list[socket.socket]:
        """Return the sockets of these settings."""
        return [bound for key in keys for _, bound in self._sockets[key]]

    def descriptors(self) -> dict[str, int]:
        """Return the descriptors of all sockets by path, for processes that inherit them."""
        return {str(path): bound.fileno() for found in self._sockets.values() for path, bound in found}

    def close(self) -> None:
        for made in self._made:
            made.close()

    def _open(self, key: str, place: UnixPlace, mode: int, inherited: Mapping[str, int] | None) -> socket.socket:
        if inherited is not None:
            bound = socket.socket(fileno=inherited[str(place.path)])
            bound.set_inheritable(False)
            return bound
        try:
            made = UnixListener(place.path, mode)
        except OSError as error:
            raise _cannot_use(key, place, error) from error
        self._made.append(made)
        return made.socket


def _check_file(key: str, place: UnixPlace) -> None:
    """Remove a socket file that an ended process has left, and check that the directory exists. Raises CannotRun."""
    try:
        remove_stale(place.path)
        if not place.path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no directory {place.path.parent}")
    except OSError as error:
        raise _cannot_use(key, place, error) from error


def _cannot_use(key: str, place: UnixPlace, error: OSError) -> CannotRun:
    if error.errno == errno.EADDRINUSE:
        return CannotRun(f"{place} is in use by another program; choose another with {key}")
    return CannotRun(f"cannot listen on {place}: {error.strerror or error}; choose another with {key}")


def _bound(key: str, host: str, port: int, *, share: bool) -> list[socket.socket]:
    other = FLAGS.get(key, key)
    host_setting = "--host" if key in FLAGS else key
    try:
        return bind_tcp(host.split(","), port, reuse_port=share)
    except socket.gaierror as error:
        raise CannotRun(f"cannot listen on {host}: {error.strerror}; choose another address with {host_setting}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotRun(f"port {port} of {host} is in use by another program; choose another with {other}") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise CannotRun(f"{host} is not an address of this machine; choose another with {host_setting}") from error
        raise CannotRun(f"cannot listen on port {port} of {host}: {error.strerror}; choose another with {other}") from error


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
    """Return the text that serve and gateway print: all addresses, and commands to try. `stores` is whether the process has a
    store.

    `admin_key` is a key that was just made, and cannot be shown again. `waits_for` is why Kafka cannot be reached, or None.
    `clickhouse_port` is the port of ClickHouse's protocol, or None if it is not answered."""
    # A collector that listens on every address also listens on loopback.
    first = settings.host.partition(",")[0]
    own = url_host({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(first, first))  # noqa: S104  # compared, not bound
    scheme = _scheme(settings)
    identity = " --cert FILE --key FILE" if settings.tls.client_ca_file is not None else ""
    lines = [
        _heading("collector", waits_for, "Requests are answered with 503 until then."),
        *_listening("HTTP API", f"{scheme}://", settings, http_port, "http.listen"),
        *_listening("OTLP over HTTP", f"{scheme}://", settings, otlp_port, "http.otlp_listen"),
        *_listening("OTLP over gRPC", "https://" if scheme == "https" else "", settings, grpc_port, "grpc.listen"),
        *_clickhouse_place(settings, clickhouse_port),
        *_places(settings, stores=stores),
        *([f"  admin key       {admin_key}   (shown this once; `keys create` makes others)"] if admin_key else []),
        "Try it:",
        f"  curl{identity} {scheme}://{own}:{http_port}/api/v1/telemetry -H 'Content-Type: application/json' -d '{RECORD}'",
        *([f"  {_ask_for_it(settings)}"] if stores else []),
    ]
    return "\n".join(lines)


def _listening(name: str, scheme: str, settings: Settings, port: int, key: str) -> list[str]:
    """Return a line of the announcement for each address and Unix socket."""
    places = [f"{scheme}{url_host(host)}:{port}" for host in settings.host.split(",")]
    places += [f"{scheme}{place}" if isinstance(place, TcpPlace) else str(place) for place in listens(settings)[key]]
    return [f"  {name if place is places[0] else '':<15} {place}" for place in places]


def writer_announcement(settings: Settings, port: int, waits_for: str | None = None) -> str:
    """Return the text that writer prints. `waits_for` is why Kafka cannot be reached, or None."""
    host = url_host(settings.host.partition(",")[0])
    lines = [
        _heading("writer", waits_for, "Nothing is stored until then."),
        f"  health          {_scheme(settings)}://{host}:{port}{HEALTH_PATH}",
        f"  metrics         {_scheme(settings)}://{host}:{port}{METRICS_PATH}",
        *_places(settings, stores=True),
    ]
    return "\n".join(lines)


def reached_announcement(name: str) -> str:
    """Return the text that is printed when Kafka is reached after a wait. `name` is `collector` or `writer`."""
    return f"InfraSage {name} {VERSION} is ready: Kafka is reached."


def _heading(name: str, waits_for: str | None, meanwhile: str) -> str:
    """Return the first line of the announcement. It has the word `ready` only if Kafka is reached."""
    if waits_for is None:
        return f"InfraSage {name} {VERSION} is ready."
    return f"InfraSage {name} {VERSION} waits for Kafka: {waits_for}. {meanwhile}"


def _scheme(settings: Settings) -> str:
    return "https" if settings.tls.cert_file is not None else "http"


def _clickhouse_place(settings: Settings, port: int | None) -> list[str]:
    """Return the line with the address of ClickHouse's protocol; none if it is not answered."""
    if port is None:
        return []
    place = f"{_scheme(settings)}://{url_host(settings.store.http_host)}:{port}"
    return [f"  ClickHouse HTTP {place}   (read-only; password: a key that reads)"]


def _places(settings: Settings, *, stores: bool) -> list[str]:
    """Return the lines that name the broker, the store and the data directory."""
    lines = []
    if settings.kafka.bootstrap:
        lines.append(f"  Kafka           {settings.kafka.bootstrap}")
    if stores and settings.clickhouse.url:
        lines.append(f"  ClickHouse      {settings.clickhouse.url}")
    if stores and not (settings.kafka.bootstrap and settings.clickhouse.url):
        lines.append(f"  data            {settings.data_dir.resolve()}")
    if not stores:
        shown = settings.clickhouse.url or "none: pages show no traces, logs and dead letters (--clickhouse)"
        lines.append(f"  ClickHouse      {shown}")
        lines.append(f"  processes       {settings.gateway.workers}")
    return lines


def _ask_for_it(settings: Settings) -> str:
    where = ["--clickhouse", settings.clickhouse.url] if settings.clickhouse.url else ["--data-dir", str(settings.data_dir)]
    # The program is named as it was called, since .venv/bin is not on the PATH.
    program = sys.argv[0] if Path(sys.argv[0]).name == "infrasage-collector" else "infrasage-collector"
    return shlex.join([program, "query", "SELECT * FROM telemetry", *where])


def url_host(host: str) -> str:
    """Return the host in the form of a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
