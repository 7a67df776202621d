"""Settings: what is read from where, and what is refused in which words."""

import json
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collector.config.problems import ConfigError
from collector.config.reference import FLAGS, SETTINGS
from collector.config.settings import Settings
from collector.config.show import show
from collector.config.sources import load
from collector.config.values import GIB, KIB, MIB, size_text, topics_of_others
from collector.tenancy.plans import BUILT_IN_PLANS, RATE_MAX, Plan, Rate, plans

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "collector.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(
    file: Path | None = None, flags: dict[str, object] | None = None, environment: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, flags, environment or {})
    return caught.value.problems


def test_defaults_need_nothing() -> None:
    """With no file, no environment and no flags, the settings are the documented defaults."""
    loaded = load(environment={})
    assert loaded.settings == Settings()
    assert loaded.origins == {}
    assert (loaded.settings.http.port, loaded.settings.http.otlp_port, loaded.settings.grpc.port) == (8080, 4318, 4317)
    assert loaded.settings.host == "127.0.0.1"


def test_the_later_source_wins(write: Write) -> None:
    """The environment is over the file, and flags are over both."""
    file = write('data_dir = "/file"\n[http]\nport = 1001\notlp_port = 1002\n[grpc]\nport = 1003\n')
    environment = {"INFRASAGE_HTTP__OTLP_PORT": "2002", "INFRASAGE_GRPC__PORT": "2003", "HOME": "/root"}
    loaded = load(file, {"grpc.port": 3003}, environment)
    assert loaded.settings.data_dir == Path("/file")
    assert (loaded.settings.http.port, loaded.settings.http.otlp_port, loaded.settings.grpc.port) == (1001, 2002, 3003)
    assert loaded.origins == {
        "data_dir": f"{file}, line 1",
        "http.port": f"{file}, line 3",
        "http.otlp_port": "environment variable INFRASAGE_HTTP__OTLP_PORT",
        "grpc.port": "--grpc-port",
    }


@pytest.mark.parametrize(
    ("written", "size"),
    [("1", 1), ("64 MiB", 64 * MIB), ("64mib", 64 * MIB), (" 3 KiB ", 3 * KIB), ("1 GiB", GIB), ("7 B", 7)],
)
def test_sizes_have_units(written: str, size: int) -> None:
    """A size is a number of bytes, or a number and a unit."""
    assert load(environment={"INFRASAGE_LOCAL_LOG__COMMIT_BYTES_MAX": written}).settings.local_log.commit_bytes_max == size


def test_none_can_be_written() -> None:
    """A setting that may be absent can be taken back by a later source, with the word none."""
    assert load(environment={"INFRASAGE_STORE__RETENTION_DAYS": "30"}).settings.store.retention_days == 30
    assert load(environment={"INFRASAGE_STORE__RETENTION_DAYS": "none"}).settings.store.retention_days is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# a comment\n[http]\nport = 99999\n",
            "line 3: http.port = 99999 is not allowed: must be a whole number from 0 to 65535 (default: 8080)",
        ),
        (
            "[http]\nport = true\n",
            "line 2: http.port = true is not allowed: must be a whole number from 0 to 65535 (default: 8080)",
        ),
        (
            "[http]\nport = 1.5\n",
            "line 2: http.port = 1.5 is not allowed: must be a whole number from 0 to 65535 (default: 8080)",
        ),
        ("http.port = []\n", "line 1: http.port = [] is not allowed: must be a whole number from 0 to 65535 (default: 8080)"),
        (
            '[http]\nserver = "gunicorn"\n',
            'line 2: http.server = "gunicorn" is not allowed: must be one of builtin, hypercorn (default: "builtin")',
        ),
        (
            '[http]\nbody_bytes_max = "12 megs"\n',
            'line 2: http.body_bytes_max = "12 megs" is not allowed: must be a size from 1 B to 1 GiB (default: "64 MiB")',
        ),
        (
            "[http]\nkeep_alive_s = nan\n",
            "line 2: http.keep_alive_s = NaN is not allowed: must be a number from 1 to 3600 (default: 75)",
        ),
        (
            '[store]\nfsync = "perhaps"\n',
            'line 2: store.fsync = "perhaps" is not allowed: must be true or false (default: true)',
        ),
        (
            "[store]\nretention_days = 0\n",
            "line 2: store.retention_days = 0 is not allowed: must be none, or a whole number from 1 to 18262"
            ' (default: "none")',
        ),
        (
            '[store]\ntenant_retention_days = "acme=0"\n',
            'line 2: store.tenant_retention_days = "acme=0" is not allowed: must be TENANT=DAYS, each tenant once, with commas'
            ' between, of 1 to 18262 days, or "" (default: "")',
        ),
        (
            '[schema]\nmaterialized_attributes = "a,,b"\n',
            'line 2: schema.materialized_attributes = "a,,b" is not allowed: must be keys of attributes, each once, with commas'
            ' between, or "" (default: ',
        ),
        (
            '[schema]\ntext_indexes = "some"\n',
            'line 2: schema.text_indexes = "some" is not allowed: must be one of none, body, all (default: "none")',
        ),
        (
            '[tenants]\nanonymous_tenant = ""\n',
            'line 2: tenants.anonymous_tenant = "" is not allowed: must be text of 1 to 128 characters (default: "anonymous")',
        ),
        ('data_dir = " "\n', 'line 1: data_dir = " " is not allowed: must be a path (default: "data")'),
        ("[http]\nprot = 1\n", "line 2: there is no setting http.prot; did you mean http.port?"),
        ("port = 1\n", "line 1: there is no setting port; did you mean http.port or grpc.port or writer.port?"),
        (
            '[kafka]\nbootstrap = "kafka"\n',
            'line 2: kafka.bootstrap = "kafka" is not allowed: must be HOST:PORT, several of them with commas between, or ""'
            ' (default: "")',
        ),
        (
            '[clickhouse]\nurl = "clickhouse:8123"\n',
            'line 2: clickhouse.url = "clickhouse:8123" is not allowed: must be http://HOST:PORT or https://HOST:PORT,'
            ' without user and password, or "" (default: "")',
        ),
        (
            '[kafka]\nclient_id = "a b"\n',
            'line 2: kafka.client_id = "a b" is not allowed: must be text without spaces of 1 to 255 characters'
            ' (default: "infrasage-collector")',
        ),
        ("[kafka]\npassword = 1\n", 'line 2: kafka.password = ******** is not allowed: must be text (default: "none")'),
        ("[htp]\nport = 1\n", "line 2: there is no section [htp]; did you mean http?"),
        ("[htp]\n", ": there is no section [htp]; did you mean http?"),
        ("http = 1\n", "line 1: http is a section, written [http], and not a value"),
        ("[http.port]\nx = 1\n", "must be a whole number from 0 to 65535 (default: 8080)"),
        ("[[http]]\nport = 1\n", "http is a section, written [http], and not a value"),
        ("[http\n", "is not TOML: "),
        ("a = 1\na = 2\n", "is not TOML: "),
    ],
)
def test_what_is_wrong_in_a_file_is_named(write: Write, text: str, expected: str) -> None:
    """The message has the file and line, the setting, its value, and what would be allowed."""
    file = write(text)
    (problem,) = problems(file)
    assert problem.startswith(str(file))
    assert expected in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cold_after_days = 3\n", "store.cold_after_days is 3, which needs store.cold_volume"),
        ('cold_volume = "slow"\n', "store.cold_volume is slow, which needs store.cold_after_days"),
        (
            'cold_after_days = 3\ncold_volume = "slow"\n',
            "store.cold_volume is slow, which needs clickhouse.url: the embedded engine has one volume",
        ),
        (
            'storage_policy = "tiers"\n',
            "store.storage_policy is tiers, which needs clickhouse.url: the embedded engine has one volume",
        ),
    ],
)
def test_what_volumes_need_is_named(write: Write, text: str, expected: str) -> None:
    """A volume and its days need one another, and both a server."""
    (problem,) = problems(write(f"[store]\n{text}"))
    assert problem.startswith(expected)


def test_what_shards_need_is_named(write: Write) -> None:
    """A server, and a database that is not that of a shard's own tables."""
    (problem,) = problems(write('[clickhouse]\nshards_cluster = "every"\n'))
    assert problem.startswith("clickhouse.shards_cluster is every, which needs clickhouse.url")
    server = '[clickhouse]\nurl = "http://127.0.0.1:8123"\ndatabase = "telemetry"\nshards_database = "telemetry"\n'
    (problem,) = problems(write(f'{server}shards_cluster = "every"\n'))
    assert problem.startswith("clickhouse.shards_database is telemetry, and must be another one than clickhouse.database")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("INFRASAGE_HTTP__PORT", "eighty", 'http.port = "eighty" is not allowed: must be a whole number from 0 to 65535'),
        ("INFRASAGE_HTTP__POTR", "80", "there is no such setting; did you mean INFRASAGE_HTTP__PORT?"),
        ("INFRASAGE_HTTP_PORT", "80", "there is no such setting; did you mean INFRASAGE_HTTP__PORT?"),
        ("INFRASAGE_", "80", "there is no such setting"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(variable: str, value: str, expected: str) -> None:
    """The message has the variable to change."""
    (problem,) = problems(environment={variable: value})
    assert problem.startswith(f"environment variable {variable}: ")
    assert expected in problem


def test_a_wrong_flag_is_named() -> None:
    """The message has the flag as it is typed, whatever the setting is called."""
    (problem,) = problems(flags={"http.otlp_port": 70000})
    assert problem.startswith("--otlp-http-port: http.otlp_port = 70000 is not allowed")


def test_every_problem_is_reported_at_once(write: Write) -> None:
    """Three mistakes in three places are three lines."""
    found = problems(write("nope = 1\n"), {"grpc.port": -1}, {"INFRASAGE_HTTP__PORT": "x"})
    assert [problem.partition(": ")[0].rpartition("/")[2] for problem in found] == [
        "collector.toml, line 1",
        "environment variable INFRASAGE_HTTP__PORT",
        "--grpc-port",
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"INFRASAGE_HTTP__PORT": "4317"},
            "http.port and grpc.port are both 4317: each needs a port of its own"
            " (http.port: environment variable INFRASAGE_HTTP__PORT)",
        ),
        (
            {"INFRASAGE_WRITER__RETRY_MIN_S": "60"},
            "writer.retry_min_s is 60 and writer.retry_max_s 30: the first must be at most the second"
            " (writer.retry_min_s: environment variable INFRASAGE_WRITER__RETRY_MIN_S)",
        ),
        (
            {"INFRASAGE_BROKER__IN_FLIGHT_BYTES_MAX": "1 MiB"},
            "broker.in_flight_bytes_max times tenants.in_flight_share_max is 512 KiB, less than http.body_bytes_max and"
            " http.decompressed_bytes_max together, 128 MiB: a request of the largest size would never be admitted"
            " (broker.in_flight_bytes_max: environment variable INFRASAGE_BROKER__IN_FLIGHT_BYTES_MAX)",
        ),
        (
            {"INFRASAGE_TENANTS__IN_FLIGHT_SHARE_MAX": "0.25"},
            "broker.in_flight_bytes_max times tenants.in_flight_share_max is 64 MiB, less than http.body_bytes_max and"
            " http.decompressed_bytes_max together, 128 MiB: a request of the largest size would never be admitted"
            " (tenants.in_flight_share_max: environment variable INFRASAGE_TENANTS__IN_FLIGHT_SHARE_MAX)",
        ),
        (
            {"INFRASAGE_BROKER__MESSAGE_ROW_BYTES_MAX": "1 MiB", "INFRASAGE_BROKER__MESSAGE_BYTES_MAX": "600 KiB"},
            "broker.message_row_bytes_max is 1 MiB, less than twice broker.message_bytes_max, 600 KiB: the row of the largest"
            " item would exceed it (broker.message_bytes_max: environment variable INFRASAGE_BROKER__MESSAGE_BYTES_MAX;"
            " broker.message_row_bytes_max: environment variable INFRASAGE_BROKER__MESSAGE_ROW_BYTES_MAX)",
        ),
        (
            {"INFRASAGE_STORE__INSERT_MEMORY_BYTES_MAX": "128 MiB"},
            "store.insert_memory_bytes_max is 128 MiB, less than 8 times broker.message_row_bytes_max, 512 MiB: the insert of"
            " one message could need more, and later messages would wait"
            " (store.insert_memory_bytes_max: environment variable INFRASAGE_STORE__INSERT_MEMORY_BYTES_MAX)",
        ),
        (
            {"INFRASAGE_TENANTS__ANONYMOUS_PLAN": "Gold"},
            "tenants.anonymous_plan is Gold, and there is no such plan; known: Free, Pro, Unlimited"
            " (tenants.anonymous_plan: environment variable INFRASAGE_TENANTS__ANONYMOUS_PLAN)",
        ),
        (
            {"INFRASAGE_LIMITS__REDIS_USER": "gateway"},
            "limits.redis_user or limits.redis_password is given, but limits.redis_url is not"
            " (limits.redis_user: environment variable INFRASAGE_LIMITS__REDIS_USER)",
        ),
        (
            {"INFRASAGE_LIMITS__REDIS_URL": "redis://r:6379", "INFRASAGE_LIMITS__REDIS_CA_FILE": "ca.pem"},
            "limits.redis_ca_file is given, but limits.redis_url is not rediss: it would not be used"
            " (limits.redis_url: environment variable INFRASAGE_LIMITS__REDIS_URL;"
            " limits.redis_ca_file: environment variable INFRASAGE_LIMITS__REDIS_CA_FILE)",
        ),
    ],
)
def test_settings_that_disagree_are_named(environment: dict[str, str], expected: str) -> None:
    """A pair that can't work together is refused, with where each given one came from."""
    assert problems(environment=environment) == [expected]


@pytest.mark.parametrize(
    "bootstrap", ["localhost:9092", "a:1,b:65535", "[::1]:9092", "kafka-0.kafka.svc.cluster.local:9092,10.0.0.1:9093", ""]
)
def test_where_kafka_is(bootstrap: str) -> None:
    """One broker or several, by name or address; or none."""
    assert load(flags={"kafka.bootstrap": bootstrap}, environment={}).settings.kafka.bootstrap == bootstrap


@pytest.mark.parametrize(
    "bootstrap", ["localhost", "a:1,", "a:1;b:2", ":9092", "a:0", "a:65536", "a:x", "a:1, b:2", "a:1\n", "a:²"]
)
def test_where_kafka_is_not(bootstrap: str) -> None:
    """A slip is refused at the start, by the flag."""
    (problem,) = problems(flags={"kafka.bootstrap": bootstrap})
    assert problem.startswith("--kafka: kafka.bootstrap = ")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", []),
        ("otlp_logs=otlp_proto", [("otlp_logs", "otlp_proto", "logs", "")]),
        (
            "otlp_metrics=otlp_json, otlp_spans=otlp_proto",
            [("otlp_metrics", "otlp_json", "metrics", ""), ("otlp_spans", "otlp_proto", "traces", "")],
        ),
        ("shop.T-1_x=otlp_json:traces", [("shop.T-1_x", "otlp_json", "traces", "")]),
        ("a=otlp_proto:logs:acme", [("a", "otlp_proto", "logs", "acme")]),
        ("otlp_logs=otlp_proto::acme", [("otlp_logs", "otlp_proto", "logs", "acme")]),
        ("otlp_logs=otlp_proto:metrics", [("otlp_logs", "otlp_proto", "metrics", "")]),
        ("a=otlp_proto:logs:team:one", [("a", "otlp_proto", "logs", "team:one")]),
    ],
)
def test_topics_of_others(written: str, expected: list[tuple[str, str, str, str]]) -> None:
    """The names that the Collector's exporter uses identify the signal. For other names it must be given."""
    flags = {"kafka.bootstrap": "k:9092", "kafka.topics": written}
    loaded = load(flags=flags, environment={}).settings
    assert expected == [tuple(topic) for topic in topics_of_others(loaded.kafka.topics)]


@pytest.mark.parametrize(
    "written",
    [
        "otlp_logs",
        "otlp_logs=",
        "otlp_logs=otlp",
        "mine=otlp_proto",
        "mine=otlp_proto:spans",
        "=otlp_proto:logs",
        "a b=otlp_proto:logs",
        "..=otlp_proto:logs",
        f"{'a' * 250}=otlp_proto:logs",
        "infrasage.logs=otlp_proto:logs",
        "a=otlp_proto:logs,a=otlp_json:logs",
        "a=otlp_proto:logs:te\tnant",
        f"a=otlp_proto:logs:{'t' * 129}",
        "a=otlp_proto:logs,",
    ],
)
def test_what_is_no_topic_of_others(written: str) -> None:
    (problem,) = problems(flags={"kafka.bootstrap": "k:9092", "kafka.topics": written})
    assert problem.startswith("--topic: kafka.topics = ")
    assert "must be NAME=ENCODING:SIGNAL:TENANT" in problem


def test_topics_of_others_need_kafka() -> None:
    (problem,) = problems(flags={"kafka.topics": "otlp_logs=otlp_proto"})
    assert problem.startswith("kafka.topics is otlp_logs=otlp_proto, which needs kafka.bootstrap")
    (problem,) = problems(environment={"INFRASAGE_KAFKA__TOPICS_TENANT_HEADER": "x-tenant"})
    assert problem.startswith("kafka.topics_tenant_header is x-tenant, which needs kafka.topics")


@pytest.mark.parametrize(
    "url", ["http://localhost:8123", "https://c.example", "http://[::1]:8123/", "https://proxy/clickhouse", ""]
)
def test_where_clickhouse_is(url: str) -> None:
    assert load(flags={"clickhouse.url": url}, environment={}).settings.clickhouse.url == url


@pytest.mark.parametrize(
    "url", ["localhost:8123", "tcp://c:9000", "http://", "http://c:8123?x=1", "http://c:99999", "http://c:x", "http://[::1"]
)
def test_where_clickhouse_is_not(url: str) -> None:
    (problem,) = problems(flags={"clickhouse.url": url})
    assert problem.startswith("--clickhouse: clickhouse.url = ")


@pytest.mark.parametrize(
    "url",
    ["redis://localhost", "redis://localhost:6379", "rediss://r.example:6380/", "redis://[::1]:6379/0", "redis://r/15", ""],
)
def test_where_redis_is(url: str) -> None:
    """It is given by name or address, with a database's number or without, over TLS or not; or there is none."""
    assert load(flags={"limits.redis_url": url}, environment={}).settings.limits.redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://r:6379",
        "unix:///run/redis.sock",
        "redis://",
        "redis://r:0",
        "redis://r:99999",
        "redis://r:x",
        "redis://r/x",
        "redis://r/0/1",
        "redis://r/\u0661",
        "redis://r?db=1",
        "redis://r#x",
        "redis://r r",
    ],
)
def test_where_redis_is_not(url: str) -> None:
    (problem,) = problems(flags={"limits.redis_url": url})
    assert problem.startswith("--redis: limits.redis_url = ")
    assert "must be redis://HOST:PORT or rediss://HOST:PORT (TLS), without user and password" in problem


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("INFRASAGE_CLICKHOUSE__URL", "https://writer:hunter2@c:8443"),
        ("INFRASAGE_LIMITS__REDIS_URL", "redis://gateway:hunter2@r:6379"),
        ("INFRASAGE_LIMITS__REDIS_URL", "redis://:hunter2@r:6379"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(variable: str, url: str) -> None:
    """It would be shown and logged: it has settings of its own."""
    (problem,) = problems(environment={variable: url})
    assert "without user and password" in problem
    assert "hunter2" not in problem


SASL = {"INFRASAGE_KAFKA__SECURITY": "SASL_SSL", "INFRASAGE_KAFKA__USERNAME": "writer"}
REDIS = {"INFRASAGE_LIMITS__REDIS_URL": "redis://r:6379"}
# Each with what it needs beside it.
SECRETS = [("kafka.password", SASL), ("clickhouse.password", {}), ("limits.redis_password", REDIS)]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file(tmp_path: Path, ending: str) -> None:
    """The end of the line that editors add is left out, and every space stays."""
    file = tmp_path / "secret"
    file.write_bytes(f" pass wörd {ending}".encode())
    settings = load(
        environment={
            **SASL,
            **REDIS,
            "INFRASAGE_KAFKA__PASSWORD_FILE": str(file),
            "INFRASAGE_CLICKHOUSE__PASSWORD_FILE": str(file),
            "INFRASAGE_LIMITS__REDIS_PASSWORD_FILE": str(file),
        }
    ).settings
    for password in (settings.kafka.password, settings.clickhouse.password, settings.limits.redis_password):
        assert password is not None
        assert password.get_secret_value() == " pass wörd "


@pytest.mark.parametrize(("key", "beside"), SECRETS)
def test_secrets_are_never_shown(tmp_path: Path, key: str, beside: dict[str, str]) -> None:
    """Neither by `config show`, wherever they come from, nor when the settings are printed or logged."""
    secret = "hunter2-and-more"
    (tmp_path / "secret").write_text(secret)
    in_file = {SETTINGS[f"{key}_file"].variable: str(tmp_path / "secret")}
    for given_ in ({SETTINGS[key].variable: secret}, in_file):
        loaded = load(environment=beside | given_)
        text = show(loaded)
        assert secret not in text + repr(loaded) + str(loaded.settings) + loaded.settings.model_dump_json()
        name = key.rpartition(".")[2]
        assert f"# {name}: given, not shown; " in text
        assert (f'{name}_file = "/' in text) == (given_ is in_file)


def test_what_show_prints_with_a_secret_s_file_can_be_loaded(write: Write, tmp_path: Path) -> None:
    """The file is read again."""
    (tmp_path / "secret").write_text("s3cret")
    loaded = load(environment={"INFRASAGE_CLICKHOUSE__PASSWORD_FILE": str(tmp_path / "secret")})
    assert load(write(show(loaded)), environment={}).settings == loaded.settings


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ": No such file or directory"),
        (b"", " is empty"),
        (b"\n", " is empty"),
        (b"\xff", ": it is not UTF-8 text"),
    ],
)
def test_a_secret_s_file_that_is_no_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, expected: str
) -> None:
    """The error has the variable that named it."""
    monkeypatch.chdir(tmp_path)
    file = Path("secret")
    if content is not None:
        file.write_bytes(content)
    (problem,) = problems(environment={"INFRASAGE_CLICKHOUSE__PASSWORD_FILE": str(file)})
    assert problem.startswith("environment variable INFRASAGE_CLICKHOUSE__PASSWORD_FILE: ")
    assert f'clickhouse.password_file "{file}"{expected}' in problem


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"INFRASAGE_KAFKA__SECURITY": "SASL_SSL"}, "needs kafka.username and kafka.password or kafka.password_file"),
        (SASL, "needs kafka.username and kafka.password or kafka.password_file"),
        ({"INFRASAGE_KAFKA__PASSWORD": "hunter2"}, "kafka.security is PLAINTEXT, without SASL"),
        ({"INFRASAGE_KAFKA__CA_FILE": "ca.pem"}, "kafka.ca_file is given, but kafka.security is PLAINTEXT, without TLS"),
        (
            {"INFRASAGE_KAFKA__SECURITY": "SSL", "INFRASAGE_KAFKA__KEY_FILE": "key.pem"},
            "kafka.key_file is given without kafka.cert_file",
        ),
        (
            {"INFRASAGE_CLICKHOUSE__CA_FILE": "ca.pem", "INFRASAGE_CLICKHOUSE__URL": "http://c:8123"},
            "clickhouse.ca_file is given, but clickhouse.url is not https",
        ),
        ({"INFRASAGE_TLS__KEY_FILE": "key.pem"}, "tls.key_file is given without tls.cert_file"),
        ({"INFRASAGE_TLS__CLIENT_CA_FILE": "ca.pem"}, "tls.client_ca_file is given without tls.cert_file"),
        ({"INFRASAGE_WRITER__PORT": "8080"}, "http.port and writer.port are both 8080"),
    ],
)
def test_security_that_is_half_set_is_refused(environment: dict[str, str], expected: str) -> None:
    """A user who sets a password or a certificate believes that it is used. No secret is in the message."""
    (problem,) = problems(environment=environment)
    assert expected in problem
    assert "hunter2" not in problem


def test_a_secret_twice_is_refused(tmp_path: Path) -> None:
    """It can't be known which of the two is meant."""
    (tmp_path / "secret").write_text("a")
    (problem,) = problems(
        environment={
            "INFRASAGE_CLICKHOUSE__PASSWORD": "hunter2",
            "INFRASAGE_CLICKHOUSE__PASSWORD_FILE": str(tmp_path / "secret"),
        }
    )
    assert "clickhouse.password and clickhouse.password_file are both given" in problem
    assert "hunter2" not in problem


# Plans.

GOLD = Plan("Gold", requests=Rate(100, 200), items=Rate(50_000, 50_000), size_bytes=Rate(10 * MIB, 64 * MIB))
GOLD_TOML = """
[plans.Gold]
requests_per_s = 100
requests_burst = 200
items_per_s = 50_000
bytes_per_s = "10 MiB"
bytes_burst = "64 MiB"
"""
GOLD_JSON = (
    '{"Gold": {"requests_per_s": 100, "requests_burst": 200, "items_per_s": 50000,'
    ' "bytes_per_s": "10 MiB", "bytes_burst": "64 MiB"}}'
)


def test_plans_in_a_file_and_in_the_environment(write: Write) -> None:
    """Tables in one, JSON in the other: the same plans, beside the built-in ones."""
    for loaded in (load(write(GOLD_TOML), environment={}), load(environment={"INFRASAGE_PLANS": GOLD_JSON})):
        assert loaded.settings.plans_by_name() == {**BUILT_IN_PLANS, "Gold": GOLD}
    assert load(environment={}).settings.plans_by_name() == BUILT_IN_PLANS


def test_a_plan_of_a_built_in_one_s_name_takes_its_place(write: Write) -> None:
    """It replaces the whole plan: what its table does not limit is not limited."""
    settings = load(write("[plans.Free]\nitems_per_s = 5\n"), environment={}).settings
    assert settings.plans_by_name() == {**BUILT_IN_PLANS, "Free": Plan("Free", None, Rate(5, 5), None)}


@pytest.mark.parametrize("name", ["Gold", "Bär.3", "free"])
def test_a_plan_s_name_is_any_word(write: Write, name: str) -> None:
    """This holds also for the anonymous tenant."""
    file = write(f'[plans."{name}"]\nrequests_per_s = 7\n[tenants]\nanonymous_plan = "{name}"\n')
    settings = load(file, environment={}).settings
    plan = settings.plans_by_name()[settings.tenants.anonymous_plan]
    assert plan == Plan(name, Rate(7, 7), None, None)


@pytest.mark.parametrize("given_", [GOLD_TOML, "plans = { Gold = { requests_per_s = 3, bytes_burst = 'none' } }", "plans = {}"])
def test_what_show_prints_of_plans_can_be_loaded(write: Write, given_: str) -> None:
    """`config show` has the plans in full, and where they came from; read again they are the same."""
    loaded = load(write(given_), environment={})
    text = show(loaded)
    again = load(write(text), environment={})
    assert again.settings == loaded.settings
    assert again.settings.plans_by_name() == loaded.settings.plans_by_name()
    assert load(environment={"INFRASAGE_PLANS": "{}"}).settings.plans == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[plans.Gold]\nrequest_per_s = 1\n",
            "line 2: there is no setting request_per_s in a plan; did you mean requests_per_s?",
        ),
        (
            "[plans.Gold]\nrequests_per_s = 0\n",
            "line 2: plans.Gold.requests_per_s is not allowed: must be none, or a whole number from 1 to 4294967296",
        ),
        ("[plans.Gold]\nrequests_per_s = true\n", "plans.Gold.requests_per_s is not allowed: must be none, or a whole number"),
        ("[plans.Gold]\nitems_burst = 1.5\n", "plans.Gold.items_burst is not allowed: must be none, or a whole number"),
        (
            '[plans.Gold]\nbytes_per_s = "5 megs"\n',
            "line 2: plans.Gold.bytes_per_s is not allowed: must be none, or a size from 1 B to 4 GiB",
        ),
        (
            '[plans."G old"]\nrequests_per_s = 1\n',
            'line 1: a plan can\'t be called "G old": it must be text without spaces of 1 to 128 characters',
        ),
        ('[plans.""]\nrequests_per_s = 1\n', 'a plan can\'t be called "": it must be text'),
        ("plans = 1\n", "plans = 1 is not allowed: must be tables [plans.NAME], or in the environment JSON"),
        ("[plans]\nGold = 1\n", "plans.Gold is not allowed"),
        (
            "[plans.Gold]\nrequests_burst = 5\n",
            "in plans: plan Gold: requests_burst is 5 but there is no requests_per_s, whose burst it would be",
        ),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(write: Write, text: str, expected: str) -> None:
    """The error has the file, the plan and its setting."""
    file = write(text)
    (problem,) = problems(file)
    assert expected in problem
    assert str(file) in problem


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Gold", 'plans = "Gold" is not allowed: must be tables [plans.NAME], or in the environment JSON'),
        ("[1]", 'plans = "[1]" is not allowed: must be tables'),
        ('{"Gold": {"items_per_s": -1}}', "plans.Gold.items_per_s is not allowed: must be none, or a whole number from 1"),
        ('{"Gold": 3}', "plans.Gold is not allowed"),
        ("null", "plans = "),
        ("[" * 100_000, "plans = "),
    ],
)
def test_what_is_wrong_with_plans_in_the_environment_is_named(value: str, expected: str) -> None:
    """The error has the variable."""
    (problem,) = problems(environment={"INFRASAGE_PLANS": value})
    assert problem.startswith("environment variable INFRASAGE_PLANS: ")
    assert expected in problem
    assert len(problem) < 400


def test_every_wrong_setting_of_a_plan_is_reported_at_once() -> None:
    found = problems(environment={"INFRASAGE_PLANS": '{"A": {"items_per_s": 0}, "B": {"x": 1, "bytes_per_s": "y"}}'})
    assert len(found) == 3, found


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20),
        st.fixed_dictionaries(
            {},
            optional={
                f"{dimension}_per_s": st.none() | st.integers(1, RATE_MAX) for dimension in ("requests", "items", "bytes")
            },
        ),
        max_size=4,
    )
)
def test_any_plans_are_shown_as_they_can_be_loaded(given_: dict[str, dict[str, int | None]]) -> None:
    """They are, whatever their names are."""
    loaded = load(environment={"INFRASAGE_PLANS": json.dumps(given_)})
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "shown.toml"
        file.write_text(show(loaded), encoding="utf-8")
        assert load(file, environment={}).settings.plans_by_name() == plans(given_)


def test_any_port_may_be_free_twice() -> None:
    """Port 0 is not a port yet, so it does not clash."""
    load(flags={"http.port": 0, "http.otlp_port": 0, "grpc.port": 0, "writer.port": 0}, environment={})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error for a file that can't be read has its path and the reason."""
    assert problems(tmp_path / "nowhere.toml") == [
        f"cannot read the configuration file {tmp_path}/nowhere.toml: No such file or directory"
    ]


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are reported by position."""
    (tmp_path / "x.toml").write_bytes(b"a = '\xff'\n")
    assert problems(tmp_path / "x.toml") == [f"{tmp_path}/x.toml is not UTF-8 text: byte 5 is 0xff"]


def test_kubernetes_service_variables_are_not_ours() -> None:
    """A service called infrasage-collector puts variables into every container; they are no settings, and no mistake."""
    loaded = load(
        environment={
            "INFRASAGE_COLLECTOR_SERVICE_HOST": "10.0.0.7",
            "INFRASAGE_COLLECTOR_SERVICE_PORT_HTTP": "8080",
            "INFRASAGE_COLLECTOR_PORT": "tcp://10.0.0.7:8080",
            "INFRASAGE_COLLECTOR_PORT_8080_TCP_ADDR": "10.0.0.7",
        }
    )
    assert loaded.origins == {}


def test_what_show_prints_can_be_loaded(write: Write) -> None:
    """`config show` is a configuration file that gives the same settings, and says where each came from."""
    loaded = load(environment={"INFRASAGE_STORE__RETENTION_DAYS": "7", "INFRASAGE_HTTP__KEEP_ALIVE_S": "1.5"})
    text = show(loaded)
    assert "retention_days = 7  # environment variable INFRASAGE_STORE__RETENTION_DAYS\n" in text
    assert load(write(text), environment={}).settings == loaded.settings


def test_every_setting_is_described_and_bounded() -> None:
    """Each has a description with a full stop, words for what is allowed, and a default that is itself allowed."""
    for setting in SETTINGS.values():
        assert (setting.field.description or "").endswith((".", ")")), setting.key
        assert setting.allowed, setting.key
        assert setting.is_secret == setting.key.endswith("password"), setting.key
        table = tomllib.loads(f"{setting.key} = {setting.default}")
        assert Settings.model_validate(table), setting.key


def test_flags_are_settings() -> None:
    """Each flag of a command sets one of the settings."""
    assert set(FLAGS) <= set(SETTINGS)


@given(st.integers(min_value=1, max_value=2**50))
def test_a_size_is_read_as_it_is_written(size: int) -> None:
    """size_text and the reader of sizes are each other's inverse."""
    text = size_text(size)
    assert int(text.split()[0]) * {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}[text.split()[1]] == size


def test_settings_can_not_be_changed() -> None:
    """What was checked at start stays as it was."""
    with pytest.raises(ValidationError):
        Settings().host = "::"  # the point of the test
