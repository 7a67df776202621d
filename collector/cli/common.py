"""The parts that commands share: options, settings, output, and the reporting of errors.

A user's mistake is reported in one clear line on standard error, never as a traceback. The exit status is 0 if the command was
done. It is 1 if the command could not be done, and 2 if its usage was wrong (flags, settings).
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn
from urllib.parse import urlsplit

import typer
from rich.cells import cell_len

from collector.config.problems import ConfigError
from collector.config.reference import SETTINGS
from collector.config.sources import Loaded, load
from collector.runtime.errors import CannotRun

FAILED: Final = 1
USAGE: Final = 2

# Characters that move a terminal's cursor or change the order of its text, except line ends and tabs.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The data directory.", show_default="./data")]
KeysFile = Annotated[
    Path | None, typer.Option("--keys-file", help="The keys file.", show_default="keys.json in the data directory")
]
ProductionKafka = Annotated[
    str | None,
    typer.Option("--kafka", metavar="HOST:PORT,…", help="Kafka's brokers, if records pass through Kafka.", show_default="none"),
]
ProductionClickHouse = Annotated[
    str | None,
    typer.Option(
        "--clickhouse", metavar="URL", help="The ClickHouse server, if records are stored there.", show_default="none"
    ),
]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings.", show_default="none")]


def load_settings(file: Path | None, flags: dict[str, object]) -> Loaded:
    """Return the settings from a file, the environment and flags. A flag that is None was not given.

    If a setting is wrong, print every problem, and exit with status 2."""
    try:
        return load(file, {key: _as_number(key, value) for key, value in flags.items() if value is not None})
    except ConfigError as error:
        for problem in error.problems:
            print_notice(f"error: {problem}")
        raise typer.Exit(USAGE) from None


def _as_number(key: str, value: object) -> object:
    """Return the value of a flag, as an int if its setting is a whole number. The check of the setting reports wrong text."""
    is_number = isinstance(value, str) and value.isdecimal() and SETTINGS[key].allowed.startswith("a whole number")
    return int(str(value)) if is_number else value


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Print the message of a CannotRun that is raised within, and exit with status 1."""
    try:
        yield
    except CannotRun as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Report that the command could not be done, and exit with status 1."""
    print_notice(f"error: {message}")
    raise typer.Exit(FAILED)


def refuse(message: str) -> NoReturn:
    """Report wrong usage, and exit with status 2."""
    print_notice(f"error: {message}")
    raise typer.Exit(USAGE)


def print_notice(message: str) -> None:
    """Print on standard error, since standard output is for the answer. If that fails, the command continues."""
    with contextlib.suppress(OSError):
        typer.echo(message, err=True)


def print_text(text: str, *, ends_line: bool = True) -> bool:
    """Print a text as `print_bytes` does. Characters that standard output's encoding lacks become question marks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return print_bytes((text + "\n" if ends_line else text).encode(encoding, errors="replace"))


def announce(text: str) -> None:
    """Print a text of the running collector. If it can't be written, report that, and return: the collector runs on."""
    with contextlib.suppress(OSError, typer.Exit):
        print_text(text)


def print_bytes(data: bytes) -> bool:
    """Write to standard output. Return whether it still has a reader: one that ends early, as `head` does, is no error.

    A terminal gets no control characters, since rows contain text from senders. If writing fails, as on a full disk, exit with
    status 1.
    """
    if sys.stdout is None:  # the process was started without standard output
        return False
    if sys.stdout.isatty():
        text = data.decode(sys.stdout.encoding, errors="replace")
        data = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text).encode(sys.stdout.encoding, errors="replace")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _write_nowhere()
        return False
    except OSError as error:
        _write_nowhere()
        fail(f"cannot write to standard output: {error.strerror}")
    return True


def _write_nowhere() -> None:
    """Redirect standard output to nowhere. Python flushes the rest of its buffer at the end, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Return text from senders, or from an answering server, with its unprintable characters replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def endpoint_of(value: str, *, may_have_path: bool) -> str:
    """Return the value of --endpoint without a slash at its end. If it is not an address, exit with status 2.

    `may_have_path` is whether a path may follow, under which a proxy has the collector's pages.
    """
    path = r"(/[^\s?#]*)?" if may_have_path else "/?"
    try:
        is_address = re.fullmatch(rf"https?://[^/\s?#@]+{path}", value) is not None and urlsplit(value).port != 0
    except ValueError:  # the port is not a number, or too large
        is_address = False
    if not is_address:
        prefix = ", and a path prefix where there is one" if may_have_path else ""
        refuse(f"--endpoint: {printable(value)} must be http://HOST:PORT or https://HOST:PORT{prefix}")
    return value.rstrip("/")


def key_of(file: Path | None) -> str | None:
    """Return the key in the file of --key-file; None if no file is given. If the file has no key, exit with status 2."""
    if file is None:
        return None
    try:
        key = file.read_bytes().decode().strip()
    except OSError as error:
        refuse(f"--key-file: cannot read {file}: {error.strerror}")
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        refuse(f"--key-file: {file} must have one API key, as `keys create` prints it, and nothing else")
    return key


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as lines of text. Each column is as wide as its widest cell."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
