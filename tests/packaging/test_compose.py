"""docker-compose.yaml, Dockerfile and .dockerignore, as far as that can be checked without running containers."""

import ctypes
import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import typer
from ruamel.yaml import YAML

from collector.cli.main import app
from collector.config.reference import SETTINGS
from collector.config.sources import load

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
OURS = ("password", "gateway", "writer")
# What reads or writes the store: a gateway's pages show what is in it.
READERS = ("gateway", "writer")
SERVICES = (*OURS, "kafka", "clickhouse", "redis", "prometheus", "grafana")


PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE = 1


def _like_a_container() -> None:
    """Modes of files hold, for root too: `cap_drop: [ALL]`."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "docker-compose.yaml").read_text())
    return read


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each with its arguments on one line."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def test_it_is_what_the_compose_specification_allows(compose: dict[str, Any]) -> None:
    """The specification's own JSON schema decides."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(compose["services"]) == set(SERVICES)


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting(compose: dict[str, Any], dockerfile: list[tuple[str, str]], service: str) -> None:
    """Each has an allowed value, together with those of the image; a password is never among them."""
    image = " ".join(arguments for instruction, arguments in dockerfile if instruction == "ENV")
    environment = dict(word.split("=", 1) for word in shlex.split(image) if word.startswith("INFRASAGE_"))
    environment |= {name: str(value) for name, value in compose["services"][service].get("environment", {}).items()}
    secrets = {setting.variable for setting in SETTINGS.values() if setting.is_secret}
    assert not secrets & environment.keys()
    # The file is there in the container only; what it is for is tried below.
    file_of_secret = environment.pop("INFRASAGE_CLICKHOUSE__PASSWORD_FILE", None)
    assert (file_of_secret is not None) == (service in READERS)
    settings = load(environment=environment).settings
    assert settings.host == "0.0.0.0"


def test_every_command_exists(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    """Services run commands that there are, with flags that they have, and what they need is set."""
    commands = typer.main.get_command(app)
    known: dict[str, Any] = commands.commands  # type: ignore[attr-defined]  # a group has them
    default = json.loads(next(arguments for instruction, arguments in dockerfile if instruction == "CMD"))
    for words in (compose["services"]["gateway"]["command"], compose["services"]["writer"]["command"], default):
        assert words[0] in known
        flags = {option for parameter in known[words[0]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= flags
    entrypoint = json.loads(next(arguments for instruction, arguments in dockerfile if instruction == "ENTRYPOINT"))
    assert entrypoint == [commands.name]
    for service in READERS:
        made = compose["services"][service]
        assert made["command"] == [service]
        assert {"INFRASAGE_KAFKA__BOOTSTRAP", "INFRASAGE_CLICKHOUSE__URL"} <= made["environment"].keys()


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_may_do_little(compose: dict[str, Any], service: str) -> None:
    """None is root or has capabilities, none can write its root file system, and memory, CPU and processes are bounded."""
    made = compose["services"][service]
    assert int(made["user"].split(":")[0]) > 0
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert made["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert all("size=" in place for place in made["tmpfs"])
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & made.keys()
    assert made["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("service", ["kafka", "clickhouse", "gateway", "writer", "prometheus", "grafana"])
def test_what_runs_on_is_watched_and_kept(compose: dict[str, Any], service: str) -> None:
    """It has a health check and is started again; what it depends on is waited for; its data is in a named volume."""
    made = compose["services"][service]
    assert made["healthcheck"]["test"][0] == "CMD"
    assert made["restart"] == "unless-stopped"
    for other, condition in made.get("depends_on", {}).items():
        expected = "service_completed_successfully" if other == "password" else "service_healthy"
        assert condition == {"condition": expected}
    for volume in made.get("volumes", []):
        source = volume.split(":")[0]
        # What is of the repository is only read.
        assert source in compose["volumes"] or (
            source.startswith("./deploy/") and (ROOT / source).exists() and volume.endswith(":ro")
        )
    if ":" in made["image"]:
        assert made["image"].rpartition(":")[2] not in ("latest", "")
    for port in made.get("ports", []):
        assert port.startswith("127.0.0.1:"), "nobody needs a key yet"


def test_prometheus_sees_tenants(compose: dict[str, Any]) -> None:
    """It is on another address than the gateway's loopback, so that nothing but the setting, or a key, shows it their names."""
    gateway, scraped = compose["services"]["gateway"], YAML(typ="safe", pure=True).load(PROMETHEUS.read_text())
    has_key = any("authorization" in job for job in scraped["scrape_configs"])
    assert has_key != (gateway["environment"].get("INFRASAGE_TENANTS__METRICS_NAMES") == "yes")
    assert has_key or all(port.startswith("127.0.0.1:") for port in gateway["ports"]), "others would see the names"


def test_alerts_lead_somewhere(compose: dict[str, Any]) -> None:
    """Each leads to a URL: that of the variable, or the files of this machine."""
    labels = YAML(typ="safe", pure=True).load(PROMETHEUS.read_text())["global"]["external_labels"]
    variable = re.fullmatch(r"\$\{(\w+)\}", labels["infrasage_docs"])
    assert variable is not None
    value = compose["services"]["prometheus"]["environment"][variable[1]]
    assert value == f"${{{variable[1]}:-file://${{PWD}}/docs}}"


def test_services_speak_of_the_same_ports(compose: dict[str, Any]) -> None:
    """Where a health check asks, and where a port leads, something listens."""
    services = compose["services"]
    http, otlp, grpc, writer = (
        SETTINGS[key].field.default for key in ("http.port", "http.otlp_port", "grpc.port", "writer.port")
    )
    assert services["gateway"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in (http, otlp, grpc)]
    assert services["writer"]["ports"] == [f"127.0.0.1:{writer}:{writer}"]
    assert f":{http}/healthz" in services["gateway"]["healthcheck"]["test"][-1]
    assert f":{writer}/healthz" in services["writer"]["healthcheck"]["test"][-1]
    bootstrap = {services[name]["environment"]["INFRASAGE_KAFKA__BOOTSTRAP"] for name in ("gateway", "writer")}
    assert bootstrap == {services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].removeprefix("PLAINTEXT://")}
    for name in ("gateway", "writer"):
        grace_s = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > float(SETTINGS["shutdown.lame_duck_s"].default) + float(SETTINGS["shutdown.timeout_s"].default) + 2


def test_the_health_check_s_own_code_works(compose: dict[str, Any]) -> None:
    """It is Python, and fails where nobody answers."""
    for service in ("gateway", "writer"):
        _, interpreter, option, code = compose["services"][service]["healthcheck"]["test"]
        assert (interpreter, option) == ("python", "-c")
        code = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", code)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Connection refused" in done.stderr


def test_the_password_is_drawn_once(compose: dict[str, Any], tmp_path: Path) -> None:
    """A user's file has it, ClickHouse's only its hash; a second start changes neither, also after one that was killed."""
    made = compose["services"]["password"]
    assert made["entrypoint"] == ["python", "-c"]
    (code,) = made["command"]
    for volume in made["volumes"]:
        name, place = volume.split(":")
        (tmp_path / name).mkdir()
        code = code.replace(place, str(tmp_path / name))
    found = set()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=_like_a_container,  # it makes one system call
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        users = (tmp_path / "clickhouse-users" / "infrasage.xml").read_text()
        for service in READERS:
            password = _on_the_host(compose["services"][service], tmp_path)
            text = load(environment={"INFRASAGE_CLICKHOUSE__PASSWORD_FILE": str(password)}).settings.clickhouse.password
            assert text is not None
            assert len(text.get_secret_value()) > 40
            assert password.stat().st_mode & 0o777 == 0o400
            user = compose["services"][service]["environment"]["INFRASAGE_CLICKHOUSE__USER"]
            digest = hashlib.sha256(text.get_secret_value().encode()).hexdigest()
            assert f"<{user}><password_sha256_hex>{digest}<" in users
            assert text.get_secret_value() not in users
            found.add(text.get_secret_value())
        for name in ("clickhouse-password", "clickhouse-users", "gateway-secrets", "grafana-secrets"):
            for left in ("clickhouse-password.partial", "infrasage.partial"):
                (tmp_path / name / left).touch(mode=0o400)
    assert len(found) == len(READERS)


def _on_the_host(service: dict[str, Any], volumes: Path) -> Path:
    """Where the file of the service's password is, in the volume that it mounts, which it can't write."""
    file = Path(service["environment"]["INFRASAGE_CLICKHOUSE__PASSWORD_FILE"])
    (volume,) = [volume for volume in service["volumes"] if f":{file.parent}:" in volume]
    assert volume.endswith(":ro")
    return volumes / str(volume).partition(":")[0] / file.name


def test_the_gateway_reads_the_store_that_the_writer_writes(compose: dict[str, Any], tmp_path: Path) -> None:
    """The same server and database, as a user that may read the telemetry and do nothing else."""
    environments = [compose["services"][service]["environment"] for service in ("gateway", "writer")]
    for name in ("INFRASAGE_CLICKHOUSE__URL", "INFRASAGE_CLICKHOUSE__DATABASE"):
        assert environments[0][name] == environments[1][name]
    (code,) = compose["services"]["password"]["command"]
    for volume in compose["services"]["password"]["volumes"]:
        name, place = volume.split(":")
        (tmp_path / name).mkdir()
        code = code.replace(place, str(tmp_path / name))
    subprocess.run([sys.executable, "-c", code], check=True)
    users = ET.parse(tmp_path / "clickhouse-users" / "infrasage.xml")
    database = environments[0]["INFRASAGE_CLICKHOUSE__DATABASE"]
    made = {user.tag: [query.text for query in user.iter("query")] for user in users.findall("users/*")}
    assert made[environments[0]["INFRASAGE_CLICKHOUSE__USER"]] == [f"GRANT SELECT ON {database}.*"]
    assert made["grafana"] == [f"GRANT SELECT ON {database}.*", "GRANT SELECT ON system.parts"]
    # Everything, by ClickHouse's default for users of a file.
    assert made[environments[1]["INFRASAGE_CLICKHOUSE__USER"]] == []
    # Every query says `readonly = 1`, which a read-only profile refuses to change.
    assert users.findtext(f"users/{environments[0]['INFRASAGE_CLICKHOUSE__USER']}/profile") == "default"


def test_the_image(dockerfile: list[tuple[str, str]]) -> None:
    """Two stages, the last without a compiler and not root; what is copied exists, and is not ignored."""
    stages = [index for index, (instruction, _) in enumerate(dockerfile) if instruction == "FROM"]
    assert len(stages) == 2
    last = dockerfile[stages[1] :]
    assert not any("gcc" in arguments or "pip install" in arguments for _, arguments in last)
    assert [arguments for instruction, arguments in last if instruction == "USER"] == ["10001:10001"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for instruction, arguments in dockerfile[: stages[1]]:
        if instruction == "COPY":
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored
    exposed = {int(port) for instruction, arguments in last if instruction == "EXPOSE" for port in arguments.split()}
    assert exposed == {SETTINGS[key].field.default for key in ("http.port", "http.otlp_port", "grpc.port", "writer.port")}
