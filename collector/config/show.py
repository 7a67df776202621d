"""Show the settings in force, and the origin of each, as a file that can be read again."""

from collector.config.reference import sections, toml_text, value_of
from collector.config.settings import Settings
from collector.config.sources import Loaded


def in_force(settings: Settings) -> list[tuple[str, str, bool, str]]:
    """Return each setting's key, its value as text, whether it is the default, and its description.

    The text of a secret says only whether it is given."""
    found = []
    for _, _, listed in sections():
        for setting in listed:
            value = value_of(settings, setting)
            if setting.is_secret:
                text, is_default = "none" if value is None else "given, not shown", value is None
            else:
                text = toml_text(value, setting.is_size)
                is_default = text == setting.default
            found.append((setting.key, text, is_default, setting.field.description or ""))
    return found


def show(loaded: Loaded) -> str:
    """Return all settings as TOML that `load` reads back. Each setting that was given has its origin in a comment.

    Secrets are left out; the names of their files are not."""
    out: list[str] = []
    for section, _, listed in sections():
        out += ["", f"[{section}]"] if section else []
        for setting in listed:
            value = value_of(loaded.settings, setting)
            origin = loaded.origins.get(setting.key)
            name = setting.key.rpartition(".")[2]
            if setting.is_secret:
                # A comment: no value that would be taken for the secret when the file is read back.
                out.append(f"# {name}: {f'given, not shown; {origin}' if value is not None else 'none'}")
                continue
            line = f"{name} = {toml_text(value, setting.is_size)}"
            out.append(f"{line}  # {origin}" if origin else line)
    return "\n".join(out) + "\n"
