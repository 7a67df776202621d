"""List every setting: its key, environment variable, flag, allowed values, default, and value in force."""

import json
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from collector.config.settings import Settings
from collector.config.values import Kind, number_text, size_text

ENVIRONMENT_PREFIX: Final = "INFRASAGE_"

# The flag of each setting that commands take as one.
FLAGS: Final = {
    "data_dir": "--data-dir",
    "host": "--host",
    "http.port": "--http-port",
    "http.otlp_port": "--otlp-http-port",
    "grpc.port": "--grpc-port",
    "kafka.bootstrap": "--kafka",
    "kafka.topics": "--topic",
    "clickhouse.url": "--clickhouse",
    "clickhouse.shards_cluster": "--cluster",
    "gateway.workers": "--workers",
    "writer.port": "--port",
    "tenants.keys_file": "--keys-file",
    "limits.redis_url": "--redis",
    "logging.requests": "--log-requests",
}


class Setting(NamedTuple):
    """One setting, for messages and the reference."""

    key: str  # such as http.port
    field: FieldInfo

    @property
    def variable(self) -> str:
        """Return the name of the environment variable, such as INFRASAGE_HTTP__PORT."""
        return ENVIRONMENT_PREFIX + self.key.upper().replace(".", "__")

    @property
    def allowed(self) -> str:
        """Return the allowed values in words, such as: a whole number from 0 to 65535."""
        return allowed_text(self.field)

    @property
    def default(self) -> str:
        """Return the default as TOML."""
        return toml_text(self.field.get_default(call_default_factory=True), self.is_size)

    @property
    def is_size(self) -> bool:
        """Return whether the value is a number of bytes."""
        return any(isinstance(item, Kind) and item.name.endswith("a size") for item in self.field.metadata)

    @property
    def is_secret(self) -> bool:
        """Return whether the value must never be shown."""
        return SecretStr in get_args(self.field.annotation)


def sections() -> Iterator[tuple[str, type[BaseModel], list[Setting]]]:
    """Yield every section: its name, its class and its settings. The first has no name: the settings outside of any section."""
    top = [Setting(name, field) for name, field in Settings.model_fields.items() if section_of(field) is None]
    yield "", Settings, top
    for name, field in Settings.model_fields.items():
        section = section_of(field)
        if section is not None:
            yield name, section, [Setting(f"{name}.{key}", inner) for key, inner in section.model_fields.items()]


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of the section that a field holds; None if the field is a setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


SETTINGS: Final[dict[str, Setting]] = {setting.key: setting for _, _, listed in sections() for setting in listed}


def allowed_text(field: FieldInfo) -> str:
    """Return the allowed values of a setting in words."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "true or false"
    kind = next(item.name for item in field.metadata if isinstance(item, Kind))
    shown = size_text if kind.endswith("a size") else number_text
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f"{kind} from {shown(low)} to {shown(high)}"
    shortest = next((item.min_length for item in field.metadata if isinstance(item, MinLen)), None)
    longest = next((item.max_length for item in field.metadata if isinstance(item, MaxLen)), None)
    return f"{kind} of {shortest or 0} to {longest} characters" if longest is not None else kind


def toml_text(value: object, is_size: bool) -> str:
    """Return a value as TOML. `is_size`: a number is one of bytes."""
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        return _table_written(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f'"{size_text(value)}"' if is_size else number_text(value)
    return json.dumps(str(value), ensure_ascii=False)


def _table_written(tables: Mapping[str, BaseModel]) -> str:
    """Return a table of tables as TOML, on one line."""
    written = []
    for name, table in tables.items():
        inner = [
            f"{key} = {toml_text(getattr(table, key), Setting(key, field).is_size)}"
            for key, field in type(table).model_fields.items()
        ]
        written.append(f"{json.dumps(name, ensure_ascii=False)} = {{ {', '.join(inner)} }}")
    return f"{{ {', '.join(written)} }}" if written else "{}"


def value_of(settings: Settings, setting: Setting) -> object:
    """Return the value of a setting in `settings`."""
    value: object = settings
    for part in setting.key.split("."):
        value = getattr(value, part)
    return value
