"""Where it listens, and what it says of that."""

import contextlib
import re
import socket
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from collector.app import ports as listening
from collector.config.broker import Kafka
from collector.config.receivers import Grpc, Http, Tls
from collector.config.settings import Settings
from collector.config.store import ClickHouse
from collector.config.tenants import Tenants
from collector.runtime.errors import CannotRun


@pytest.mark.parametrize(
    ("host", "listening_on", "own"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::", "[::]", "[::1]"),
        ("::1", "[::1]", "[::1]"),
        ("collector.example", "collector.example", "collector.example"),
    ],
)
def test_the_announcement_can_be_pasted(tmp_path: Path, host: str, listening_on: str, own: str) -> None:
    """Three addresses as URLs need them, the data's absolute path, and a curl line for an address that can be reached."""
    text = listening.announcement(Settings(host=host, data_dir=tmp_path / "my data"), 1, 2, 3)
    assert f" http://{listening_on}:1\n" in text
    assert f" http://{listening_on}:2\n" in text
    assert f" {listening_on}:3\n" in text
    assert f" {tmp_path}/my data\n" in text
    assert "ClickHouse HTTP" not in text
    settings = Settings.model_validate({"host": host, "store": {"http_host": "::1"}})
    assert "  ClickHouse HTTP http://[::1]:9 " in listening.announcement(settings, 1, 2, 3, clickhouse_port=9)
    assert f"--data-dir '{tmp_path}/my data'" in text
    (curl,) = re.findall(r"^  (curl .*)$", text, re.MULTILINE)
    assert f" http://{own}:1/api/v1/telemetry " in curl
    words = subprocess.run(
        ["bash", "-c", curl.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
    )
    assert re.search(r'"timestamp": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"', words.stdout)


@pytest.mark.parametrize(
    ("key", "flag"), [("http.port", "--http-port"), ("http.otlp_port", "--otlp-http-port"), ("grpc.port", "--grpc-port")]
)
def test_a_port_in_use_is_reported_with_its_flag(key: str, flag: str) -> None:
    """It is reported before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CannotRun, match=f"^port {port} of 127.0.0.1 is in use by another program; choose another with {flag}$"
        ):
            listening.check_port(key, "127.0.0.1", port)
    listening.check_port(key, "127.0.0.1", port)


def test_ports_are_taken_from_the_settings() -> None:
    """Each port that is listened on, by the name of its setting."""
    assert listening.ports(Settings(http=Http(port=1, otlp_port=2))) == {"http.port": 1, "http.otlp_port": 2, "grpc.port": 4317}


def test_ports_are_held_for_several_processes() -> None:
    """A free port is the same for all of them; another collector gets the error that it is in use, as soon as one listens."""
    settings = Settings(http=Http(port=0, otlp_port=0), grpc=Grpc(port=0))
    with contextlib.closing(listening.SharedPorts(settings, listening.ports(settings), {})) as shared:
        held = shared.settings(settings)
        ports = listening.ports(held)
        assert 0 not in ports.values()
        assert len(set(ports.values())) == 3
        for key, port in ports.items():
            with (
                socket.create_server(("127.0.0.1", port), reuse_port=True),  # as a worker does
                pytest.raises(CannotRun, match="in use by another program"),
            ):
                listening.check_port(key, "127.0.0.1", port)
    listening.SharedPorts(held, listening.ports(held), {}).close()


@pytest.mark.parametrize(("client_ca", "identity"), [(None, ""), (Path("clients.pem"), " --cert FILE --key FILE")])
def test_the_announcement_says_https_where_it_is(client_ca: Path | None, identity: str) -> None:
    """It has every port, and what a client needs beside."""
    settings = Settings(tls=Tls(cert_file=Path("server.pem"), client_ca_file=client_ca))
    text = listening.announcement(settings, 1, 2, 3) + listening.writer_announcement(settings, 4)
    for port in range(1, 5):
        assert f" https://127.0.0.1:{port}" in text
    assert f"  curl{identity} https://127.0.0.1:1/api/v1/telemetry " in text
    assert "http://" not in text


@pytest.mark.parametrize(
    ("settings", "stores", "expected"),
    [
        (Settings(kafka=Kafka(bootstrap="k:9092")), True, {"Kafka", "data"}),
        (Settings(clickhouse=ClickHouse(url="http://c:8123")), True, {"ClickHouse", "data"}),
        (Settings(kafka=Kafka(bootstrap="k:9092"), clickhouse=ClickHouse(url="http://c:8123")), True, {"Kafka", "ClickHouse"}),
        (Settings(kafka=Kafka(bootstrap="k:9092")), False, {"Kafka", "ClickHouse", "processes"}),
    ],
)
def test_the_announcement_names_what_is_used(settings: Settings, stores: bool, expected: set[str]) -> None:
    """The data directory only where something is in it; how to ask, only where there is a store."""
    text = listening.announcement(settings, 1, 2, 3, stores=stores)
    places, _, _ = text.partition("Try it:")
    assert {line.split()[0] for line in places.splitlines()[4:]} == expected
    assert ("infrasage-collector query" in text) == stores
    assert ("--clickhouse http://c:8123" in text) == bool(settings.clickhouse.url)
    # A gateway stores nothing; what it lacks without a store, it says.
    assert ("none: pages show no traces" in text) == (not stores)


def test_a_gateway_names_the_store_that_its_pages_read() -> None:
    settings = Settings(kafka=Kafka(bootstrap="k:9092"), clickhouse=ClickHouse(url="http://c:8123"))
    text = listening.announcement(settings, 1, 2, 3, stores=False)
    assert "  ClickHouse      http://c:8123\n" in text


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("fe80::1%lo", False),
        ("no such name", False),
    ],
)
def test_which_addresses_are_this_machines_alone(host: str, is_loopback: bool) -> None:
    """Every other may be reached by others, one that is not known too."""
    assert is_loopback == listening.is_loopback(host)


@pytest.mark.parametrize(
    ("host", "anonymous", "by_default", "warns"),
    [
        ("0.0.0.0", "auto", True, True),
        ("0.0.0.0", "yes", False, True),
        ("::", "yes", True, True),
        ("0.0.0.0", "auto", False, False),
        ("0.0.0.0", "no", True, False),
        ("127.0.0.1", "yes", True, False),
        ("localhost", "auto", True, False),
    ],
)
def test_anonymous_senders_from_elsewhere_are_a_warning(host: str, anonymous: str, by_default: bool, warns: bool) -> None:
    """It says how to require keys."""
    settings = Settings(host=host, tenants=Tenants.model_validate({"anonymous": anonymous}))
    with capture_logs() as logged:
        listening.warn_of_anonymous(settings, anonymous_by_default=by_default)
    assert warns == bool(logged)
    for entry in logged:
        assert ("warning", host) == (entry["log_level"], entry["host"])
        assert "tenants.anonymous to no" in entry["event"]
        assert "keys create" in entry["event"]
