"""Describe what is wrong with a configuration.

Invariants:
1. A problem names the setting, its value, what is allowed, and the line of the file or the variable to change.
   (tests/unit/collector/config/test_settings.py, test_what_is_wrong_in_a_file_is_named,
   test_what_is_wrong_in_the_environment_is_named)
2. No problem shows a secret. (test_secrets_are_never_shown, test_a_password_in_a_url_is_refused_and_not_repeated)
"""

import difflib
import json
from collections.abc import Mapping
from typing import Final

from collector.config.reference import SETTINGS, Setting, allowed_text, sections
from collector.config.tenants import PLAN_NAME_MAX, PlanLimits

# Shown instead of a secret.
MASKED: Final = "********"


class ConfigError(Exception):
    """The configuration can't be used. `problems` has one line for each setting that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems: Final = problems


def problem(
    location: tuple[int | str, ...], message: str, given: Mapping[str, tuple[object, str]], within: Mapping[str, str]
) -> str:
    """Return one line for a setting that is wrong: where it was given, what is wrong with it, and what is allowed.

    `location` and `message` are pydantic's. `given` has the value and the origin of each setting by its key. `within` has the
    origins of the contents of tables."""
    key = ".".join(str(part) for part in location)
    if location and location[0] in SETTINGS and len(location) > 1:
        value, origin = given[str(location[0])]
        if isinstance(value, dict):  # from the file; from the environment it is text
            origin = within.get(key) or within.get(f"{location[0]}.{location[1]}") or origin
        return f"{origin}: {_problem_in_table(key, location, message)}"
    if key not in SETTINGS:  # a disagreement between settings, from Settings._agree
        named = [f"{name}: {given[name][1]}" for name in SETTINGS if name in message and name in given]
        return message.removeprefix("Value error, ") + (f" ({'; '.join(named)})" if named else "")
    setting = SETTINGS[key]
    value, origin = given[key]
    # A URL may be refused because of the password in it.
    hidden = setting.is_secret or (setting.field.annotation is str and "@" in str(value))
    shown = MASKED if hidden else value_text(value)
    return f"{origin}: {key} = {shown} is not allowed: must be {setting.allowed} (default: {setting.default})"


def _problem_in_table(key: str, location: tuple[int | str, ...], message: str) -> str:
    """Return what is wrong in one of the tables of `plans`, without its origin."""
    name = str(location[-1])
    if name == "[key]":  # pydantic's name for the table's own name, which is wrong
        called = value_text(location[1])
        return f"a plan can't be called {called}: it must be text without spaces of 1 to {PLAN_NAME_MAX} characters"
    field = PlanLimits.model_fields.get(name)
    if len(location) == 3 and field is None:
        return f"there is no setting {name} in a plan{suggest(name, list(PlanLimits.model_fields))}"
    if field is None or len(location) != 3:
        return f"{key} is not allowed: {message.removeprefix('Value error, ')}"
    return f"{key} is not allowed: must be {allowed_text(field)} (default: {Setting(key, field).default})"


def value_text(value: object) -> str:
    """Return a value as a message shows it: its JSON, cut after 80 characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def unknown_setting(key: str) -> str:
    """Return that there is no such setting, with the name that was probably meant."""
    section, _, name = key.rpartition(".")
    if section and section not in section_names():
        return f"there is no section [{section}]{suggest(section, section_names())}"
    close = suggest(key, SETTINGS)
    # A right name in a wrong section, or in none, is not found by its spelling alone.
    elsewhere = [known for known in SETTINGS if known.rpartition(".")[2] == name]
    if elsewhere:
        close = f"; did you mean {' or '.join(elsewhere)}?"
    return f"there is no setting {key}{close}"


def section_names() -> list[str]:
    """Return the sections that a settings file may have."""
    return [name for name, _, _ in sections() if name]


def suggest(name: str, known: Mapping[str, object] | list[str]) -> str:
    """Return the end of a message with the known name that was probably meant; empty if none is similar."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
