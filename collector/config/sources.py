"""Read the settings from a file, the environment and flags. The environment replaces the file, and flags replace both.

Nothing else in the program reads a configuration file or the environment.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from collector.config.problems import ConfigError, problem, section_names, suggest, unknown_setting, value_text
from collector.config.reference import ENVIRONMENT_PREFIX, FLAGS, SETTINGS, section_of
from collector.config.settings import Settings

# setup.py reads it when the package is built. It is in the environment if the same shell builds and runs.
_NOT_SETTINGS: Final = frozenset({"INFRASAGE_UNCOMPILED"})


class Loaded(NamedTuple):
    """The settings, and the origin of each value that was given, by key."""

    settings: Settings
    origins: dict[str, str]


def load(
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Return the settings in `file`, replaced by those of the environment, and these by `flags`.

    `flags` are by key of FLAGS: {"http.port": 8080}. `environment` is the process's unless given. Raises ConfigError with every
    problem.
    """
    given: dict[str, tuple[object, str]] = {}
    within: dict[str, str] = {}  # the origins of the contents of tables, by key
    problems: list[str] = []
    if file is not None:
        _read_file(file, given, within, problems)
    _read_environment(os.environ if environment is None else environment, given, problems)
    for key, value in (flags or {}).items():
        given[key] = (value, FLAGS[key])
    _read_secrets(given, problems)
    nested: dict[str, Any] = {}
    for key, (value, _) in given.items():
        *section, name = key.split(".")
        (nested.setdefault(section[0], {}) if section else nested)[name] = value
    settings = Settings()
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        problems += [problem(details["loc"], details["msg"], given, within) for details in error.errors()]
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, {key: origin for key, (_, origin) in given.items()})


def _read_file(file: Path, given: dict[str, tuple[object, str]], within: dict[str, str], problems: list[str]) -> None:
    """Add the settings of a TOML file to `given`. Raises ConfigError if the file can't be read or parsed."""
    try:
        text = file.read_bytes().decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"cannot read the configuration file {file}: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file} is not TOML: {error}"]) from None
    lines = _lines(text)
    for name, value in table.items():
        if name in SETTINGS and isinstance(value, dict):  # tables whose names the user chooses: plans
            within.update({key: f"{file}, line {line}" for key, line in lines.items() if key.startswith(f"{name}.")})
            given[name] = (value, f"{file}, line {lines[name]}" if name in lines else next(iter(within.values()), str(file)))
            continue
        section = name in Settings.model_fields and section_of(Settings.model_fields[name]) is not None
        inner = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        for key, item in inner.items():
            origin = (
                f"{file}, line {lines[key]}" if key in lines else f"{file}, line {lines[name]}" if name in lines else str(file)
            )
            if key in SETTINGS:
                given[key] = (item, origin)
            elif section and key == name:
                problems.append(f"{origin}: {name} is a section, written [{name}], and not a value")
            else:
                problems.append(f"{origin}: {unknown_setting(key)}")
        if not section and not inner:
            problems.append(f"{file}: there is no section [{name}]{suggest(name, section_names())}")


def _read_environment(environment: Mapping[str, str], given: dict[str, tuple[object, str]], problems: list[str]) -> None:
    """Add the settings of the environment's variables to `given`."""
    by_variable = {setting.variable: setting for setting in SETTINGS.values()}
    # Kubernetes sets variables for each service in each container. Those of a service named infrasage… look like settings.
    services = tuple(name.removesuffix("SERVICE_HOST") for name in environment if name.endswith("_SERVICE_HOST"))
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        setting = by_variable.get(variable)
        if setting is not None:
            given[setting.key] = (environment[variable], f"environment variable {variable}")
        elif not any(variable.startswith((f"{service}SERVICE_", f"{service}PORT")) for service in services):
            problems.append(f"environment variable {variable}: there is no such setting{suggest(variable, by_variable)}")


def _read_secrets(given: dict[str, tuple[object, str]], problems: list[str]) -> None:
    """Set each secret whose file is given to the contents of the file."""
    for setting in SETTINGS.values():
        file_key = f"{setting.key}_file"
        path, origin = given.get(file_key, (None, ""))
        if not setting.is_secret or path in (None, "", "none"):
            continue
        if setting.key in given and given[setting.key][0] not in ("", "none"):
            problems.append(f"{setting.key} and {file_key} are both given: which is meant? ({given[setting.key][1]}; {origin})")
            continue
        try:
            secret = Path(str(path)).expanduser().read_bytes().decode().removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(f"{origin}: cannot read {file_key} {value_text(path)}: {reason}")
            continue
        if not secret:
            problems.append(f"{origin}: {file_key} {value_text(path)} is empty")
            continue
        given[setting.key] = (secret, f"{file_key}: {path}")


_TABLE: Final = re.compile(r"\s*\[\s*([\w.\"' -]+?)\s*\]")
_KEY: Final = re.compile(r"\s*([\w.\"' -]+?)\s*=")


def _lines(text: str) -> dict[str, int]:
    """Return the line number of each key and section of a TOML text. Only multi-line values can make it inexact."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        table, key = _TABLE.match(line), _KEY.match(line)
        if table:
            section = _plain(table[1])
            lines.setdefault(section, number)
        elif key:
            name = _plain(key[1])
            lines.setdefault(f"{section}.{name}" if section else name, number)
    return lines


def _plain(key: str) -> str:
    """Return a dotted TOML key without spaces and quotation marks."""
    return ".".join(part.strip(" \"'") for part in key.split("."))
