"""Every setting by its name: its variable, its flag, what it may be, its default, and its value."""

import json
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from collector.config.settings import Settings
from collector.config.values import Kind, number_text, size_text

ENVIRONMENT_PREFIX: Final = "INFRASAGE_"

# The settings that commands take as flags.
FLAGS: Final = {
    "data_dir": "--data-dir",
    "host": "--host",
    "http.port": "--http-port",
    "http.otlp_port": "--otlp-http-port",
    "grpc.port": "--grpc-port",
    "kafka.bootstrap": "--kafka",
    "kafka.topics": "--topic",
    "clickhouse.url": "--clickhouse",
    "gateway.workers": "--workers",
    "writer.port": "--port",
    "tenants.keys_file": "--keys-file",
    "limits.redis_url": "--redis",
    "logging.requests": "--log-requests",
}


class Setting(NamedTuple):
    """One setting, as messages and the reference have it."""

    key: str  # http.port
    field: FieldInfo

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.key.upper().replace(".", "__")

    @property
    def allowed(self) -> str:
        """Describe the allowed values: a whole number from 0 to 65535."""
        return allowed_text(self.field)

    @property
    def default(self) -> str:
        """The default as one would write it."""
        return toml_text(self.field.get_default(call_default_factory=True), self.is_size)

    @property
    def is_size(self) -> bool:
        return any(isinstance(item, Kind) and item.name.endswith("a size") for item in self.field.metadata)

    @property
    def is_secret(self) -> bool:
        """Its value is never shown."""
        return SecretStr in get_args(self.field.annotation)


def sections() -> Iterator[tuple[str, type[BaseModel], list[Setting]]]:
    """Every section by name, the one without a name first, with its settings."""
    top = [Setting(name, field) for name, field in Settings.model_fields.items() if section_of(field) is None]
    yield "", Settings, top
    for name, field in Settings.model_fields.items():
        section = section_of(field)
        if section is not None:
            yield name, section, [Setting(f"{name}.{key}", inner) for key, inner in section.model_fields.items()]


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field is; None for a setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


SETTINGS: Final[dict[str, Setting]] = {setting.key: setting for _, _, listed in sections() for setting in listed}


def allowed_text(field: FieldInfo) -> str:
    """Return in words what a setting may be."""
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
    """Return the value as TOML has it."""
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
    """Return the table as TOML has it on one line."""
    written = []
    for name, table in tables.items():
        inner = [
            f"{key} = {toml_text(getattr(table, key), Setting(key, field).is_size)}"
            for key, field in type(table).model_fields.items()
        ]
        written.append(f"{json.dumps(name, ensure_ascii=False)} = {{ {', '.join(inner)} }}")
    return f"{{ {', '.join(written)} }}" if written else "{}"


def value_of(settings: Settings, setting: Setting) -> object:
    """Return the value in force."""
    value: object = settings
    for part in setting.key.split("."):
        value = getattr(value, part)
    return value
