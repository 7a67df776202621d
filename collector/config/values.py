"""The types of settings: how a value of each is read, checked, and described in messages."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from collector.broker.contract import SIGNAL_TOPICS, TOPIC_ENCODINGS
from collector.config.places import read_hosts, read_places
from collector.tenancy.keys_file import tenant_problem
from collector.tenancy.origins import ORIGINS_MAX, origin_problem

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
# 50 years. ClickHouse adds days to times of 32 bits, which end in 2106. Later times begin at 1970 again, so all rows would be
# too old.
DAYS_MAX: Final = 18_262
_UNITS: Final = {"b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024 * GIB}
_SIZE: Final = re.compile(r"\s*(\d+)\s*([a-z]*)\s*", re.IGNORECASE)
_PATH_PREFIX: Final = re.compile(r"(?:/[\w.~-]+)+", re.ASCII)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
# The default topics of the OpenTelemetry Collector's kafka exporter. That of traces is otlp_spans.
_SIGNALS_OF_TOPICS: Final = {**{f"otlp_{signal}": signal for signal in SIGNAL_TOPICS}, "otlp_spans": "traces"}
_OUR_TOPICS: Final = "infrasage."
# A name, an IPv4 address, or an IPv6 address in brackets; and a port.
_SERVER: Final = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", re.ASCII)


def _no_boolean(value: object) -> object:
    """Return a value that is no boolean. Raises ValueError."""
    # Python's True is the integer 1, so `port = true` would pass as a number.
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


def _to_bytes(value: object) -> object:
    """Return a size in bytes: "64 MiB" is 67108864, and a number without a unit is in bytes. Raises ValueError."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        unit = _UNITS.get(match[2].lower() or "b") if match else None
        if match is None or unit is None:
            raise ValueError("not a size")
        return int(match[1]) * unit
    return _no_boolean(value)


def _to_optional(value: object) -> object:
    """Return None for the word none, since TOML and the environment have no null. Raises ValueError for a boolean."""
    return None if value in ("", "none") else _no_boolean(value)


def _to_optional_path(value: object) -> object:
    return None if value in ("", "none") else _to_path(value)


def _to_quorum(value: object) -> object:
    number = int(value) if isinstance(value, str) and value.isdecimal() else _no_boolean(value)
    if number != "auto" and not (isinstance(number, int) and 0 <= number <= 100):
        raise ValueError("not a quorum")
    return number


def no_whitespace(value: str) -> str:
    """Return a value that has neither spaces nor control characters. Raises ValueError."""
    if not value.isprintable() or " " in value:
        raise ValueError("whitespace")
    return value


def _servers(value: str) -> str:
    """Return HOST:PORT,HOST:PORT as clients of Kafka take it, or an empty text. Raises ValueError."""
    for server in value.split(",") if value else ():
        match = _SERVER.fullmatch(server)
        if match is None or not 1 <= int(match[1]) <= 65535:
            raise ValueError("not HOST:PORT")
    return value


def _server_url(value: str) -> str:
    """Return the URL of a server, or an empty text. Raises ValueError.

    The user and the database are settings of their own. A password in a URL would be shown and logged."""
    if not value:
        return value
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        raise ValueError("not a URL of a server")
    if url.query or url.fragment or url.port == 0:
        raise ValueError("more than a server")
    return value


def _redis_url(value: str) -> str:
    """Return the URL of a Redis, perhaps with the number of a database, or an empty text. Raises ValueError."""
    if not value:
        return value
    url = urlsplit(value)
    if url.scheme not in ("redis", "rediss") or not url.hostname or "@" in url.netloc:
        raise ValueError("not a URL of a Redis")
    if url.query or url.fragment or url.port == 0 or not re.fullmatch(r"(/\d*)?", url.path, re.ASCII):
        raise ValueError("more than a server and a database")
    return value


def to_tables(value: object) -> object:
    """Return tables, which come as JSON from the environment. Raises ValueError."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("not JSON") from None
    return value


def _to_optional_bytes(value: object) -> object:
    return None if value in ("", "none") else _to_bytes(value)


def _to_path(value: object) -> object:
    if isinstance(value, str) and not value.strip("\0 "):
        raise ValueError("empty")
    return Path(value).expanduser() if isinstance(value, str) else value


def _path_prefix(value: str) -> str:
    if value and not _PATH_PREFIX.fullmatch(value):
        raise ValueError("not a path")
    return value


def _list_of(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",")] if value else []


def _origins(value: str) -> str:
    entries = _list_of(value)
    if len(entries) > ORIGINS_MAX or any(origin_problem(entry) for entry in entries):
        raise ValueError("not origins")
    return ",".join(entries)


def _hosts(value: str) -> str:
    return ",".join(read_hosts(value))


def _places(value: str) -> str:
    return ",".join(map(str, read_places(value)))


def _file_mode(value: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", value, re.ASCII):
        raise ValueError("not a mode")
    return value


def _header_names(value: str) -> str:
    names = _list_of(value)
    if not all(_HEADER_NAME.fullmatch(name) for name in names):
        raise ValueError("not names of headers")
    return ",".join(names)


def _attribute_keys(value: str) -> str:
    keys = _list_of(value)
    if not all(key and key.isprintable() for key in keys) or len(set(keys)) != len(keys):
        raise ValueError("not keys")
    return ",".join(keys)


def attribute_keys(value: str) -> tuple[str, ...]:
    """Return the keys in a value of the type AttributeKeys."""
    return tuple(_list_of(value))


def days_of_tenants(value: str) -> dict[str, int]:
    """Return the days by tenant in TENANT=DAYS,TENANT=DAYS. Raises ValueError."""
    found: dict[str, int] = {}
    for entry in _list_of(value):
        tenant, _, days = entry.rpartition("=")
        if not tenant or not re.fullmatch(r"[0-9]{1,5}", days) or not 1 <= int(days) <= DAYS_MAX or tenant in found:
            raise ValueError("not TENANT=DAYS")
        found[tenant] = int(days)
    return found


def _tenant_days(value: str) -> str:
    return ",".join(f"{tenant}={days}" for tenant, days in days_of_tenants(value).items())


class NamedTopic(NamedTuple):
    """A topic that other programs write, as a setting names it. `tenant` is empty if the setting names none."""

    name: str
    encoding: str
    signal: str
    tenant: str


def topics_of_others(value: str) -> list[NamedTopic]:
    """Return the topics in NAME=ENCODING:SIGNAL:TENANT,… in their order. Raises ValueError."""
    found: dict[str, NamedTopic] = {}
    for entry in _list_of(value):
        name, _, rest = entry.partition("=")
        encoding, _, rest = rest.partition(":")
        signal, _, tenant = rest.partition(":")
        signal = signal or _SIGNALS_OF_TOPICS.get(name, "")
        if (
            not _TOPIC.fullmatch(name)
            or name in (".", "..")
            or name.startswith(_OUR_TOPICS)
            or name in found
            or encoding not in TOPIC_ENCODINGS
            or signal not in SIGNAL_TOPICS
            or (tenant and tenant_problem(tenant))
        ):
            raise ValueError("not topics")
        found[name] = NamedTopic(name, encoding, signal, tenant)
    return list(found.values())


def _topics(value: str) -> str:
    topics_of_others(value)
    return ",".join(_list_of(value))


class Kind(NamedTuple):
    """The description of a type in messages and in the reference."""

    name: str


Whole = Annotated[int, BeforeValidator(_no_boolean), Kind("a whole number")]
Bytes = Annotated[int, BeforeValidator(_to_bytes), Kind("a size")]
Number = Annotated[float, BeforeValidator(_no_boolean), Kind("a number")]
OptionalWhole = Annotated[int | None, BeforeValidator(_to_optional), Kind("none, or a whole number")]
Text = Annotated[str, Kind("text")]
Location = Annotated[Path, BeforeValidator(_to_path), Kind("a path")]
OptionalLocation = Annotated[Path | None, BeforeValidator(_to_optional_path), Kind("none, or a path")]
Name = Annotated[str, AfterValidator(no_whitespace), Kind("text without spaces")]
Servers = Annotated[
    str,
    AfterValidator(no_whitespace),
    AfterValidator(_servers),
    Kind('HOST:PORT, several of them with commas between, or ""'),
]
ServerUrl = Annotated[
    str,
    AfterValidator(no_whitespace),
    AfterValidator(_server_url),
    Kind('http://HOST:PORT or https://HOST:PORT, without user and password, or ""'),
]
RedisUrl = Annotated[
    str,
    AfterValidator(no_whitespace),
    AfterValidator(_redis_url),
    Kind('redis://HOST:PORT or rediss://HOST:PORT (TLS), without user and password, or ""'),
]
PathPrefix = Annotated[str, AfterValidator(_path_prefix), Kind('a path without a slash at its end, as /collector, or ""')]
Origins = Annotated[
    str,
    AfterValidator(_origins),
    Kind('origins with commas between, as https://app.example.com or https://*.example.com; *; or ""'),
]
HeaderNames = Annotated[str, AfterValidator(_header_names), Kind('names of headers with commas between, *, or ""')]
Hosts = Annotated[str, AfterValidator(_hosts), Kind("addresses or names of this machine, with commas between")]
Places = Annotated[
    str, AfterValidator(_places), Kind('HOST:PORT or unix:/PATH (of at most 107 bytes), several with commas between, or ""')
]
FileMode = Annotated[str, AfterValidator(_file_mode), Kind("a mode in octal, as 0660")]
AttributeKeys = Annotated[
    str, AfterValidator(_attribute_keys), Kind('keys of attributes, each once, with commas between, or ""')
]
TenantDays = Annotated[
    str,
    AfterValidator(_tenant_days),
    Kind(f'TENANT=DAYS, each tenant once, with commas between, of 1 to {DAYS_MAX} days, or ""'),
]
Topics = Annotated[
    str,
    AfterValidator(_topics),
    Kind(
        "NAME=ENCODING:SIGNAL:TENANT, several with commas between; ENCODING is otlp_proto or otlp_json; SIGNAL is metrics,"
        " logs or traces, and may be left out if NAME is otlp_metrics, otlp_logs or otlp_spans; TENANT may be left out;"
        f' each NAME once, and none that begins with {_OUR_TOPICS}; or ""'
    ),
]
OptionalBytes = Annotated[int | None, BeforeValidator(_to_optional_bytes), Kind("none, or a size")]
Quorum = Annotated[int | Literal["auto"], BeforeValidator(_to_quorum), Kind("auto, or a whole number from 0 to 100")]
Secret = Annotated[SecretStr | None, BeforeValidator(_to_optional), Kind("text")]
Port = Annotated[int, BeforeValidator(_no_boolean), Ge(0), Le(65535), Kind("a whole number")]


def secret_text(secret: SecretStr | None) -> str:
    """Return the secret's text; empty if there is none."""
    return secret.get_secret_value() if secret is not None else ""


def limit(default: float | None, low: float, high: float, description: str) -> Any:  # as pydantic's Field
    """Return the field of a setting that is a number from `low` to `high`."""
    return Field(default=default, ge=low, le=high, allow_inf_nan=False, description=description)


class Section(BaseModel):
    """A section of the settings. Unknown names are errors, and values can't be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def size_text(size: Any) -> str:  # annotated_types has bounds of any ordered type
    """Return a size in the largest unit that gives a whole number: 67108864 is 64 MiB, and 1000 is 1000 B."""
    for name, unit in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def number_text(number: Any) -> str:  # as size_text
    """Return a number as documentation shows it: without a fraction if it is whole."""
    return f"{int(number)}" if number == int(number) else f"{number:g}"
