"""The pages for users: each command that they show is accepted by the program, and figures that they quote are in force."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from collector.cli.main import app
from collector.config.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "SECURITY.md",
    "deploy/helm/infrasage-collector/templates/NOTES.txt",
    *sorted(
        page.relative_to(ROOT).as_posix()
        for folder in ("use", "operate", "contribute")
        for page in (ROOT / "docs" / folder).glob("*.md")
    ),
]
_EXAMPLE = re.compile(r"^ {2,4}.*?(?<![\w/@])(?:\.venv/bin/)?infrasage-collector +(.*)", re.MULTILINE)
_IN_A_SENTENCE = re.compile(r"`(?:\.venv/bin/)?infrasage-collector +([^`\n]+)`")


def commands(text: str) -> list[list[str]]:
    """Return the arguments of each command that a page shows whole: without `…`, and without a synopsis's optional parts."""
    examples = [_words(line) for line in _EXAMPLE.findall(text)]
    # A sentence may name a command without its arguments.
    named = [[*words, "--help"] for words in map(_words, _IN_A_SENTENCE.findall(text))]
    return [words for words in (*examples, *named) if "…" not in words]


def _words(line: str) -> list[str]:
    whole = re.sub(r" \[--[^\]]*\]", "", line)
    return shlex.split(re.split(r" [|>] |`", whole)[0], comments=True)


def status(arguments: list[str]) -> int:
    """The exit status of the command, where no command does anything: 2 is what the program answers to wrong usage."""
    program = typer.main.get_command(app)
    _disarm(program)
    with pytest.raises(SystemExit) as ended:
        program.main(arguments, prog_name="infrasage-collector")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _disarm(command: Any) -> None:
    """Replace what the command runs, what its options run by themselves, and the same of each command of a group."""
    command.callback = lambda **_: None
    for parameter in command.params:
        # --version; and --install-completion, which would write into the home of who runs the tests.
        if parameter.is_eager or not parameter.expose_value:
            parameter.callback = _stop
    for inner in getattr(command, "commands", {}).values():
        _disarm(inner)


def _stop(context: Any, _parameter: Any, is_given: Any) -> None:
    if is_given:
        context.exit(0)


def test_no_command_does_anything_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done, also by an option that acts while the command is read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for option in ("--version", "--install-completion", "--show-completion"):
        assert status([option]) == 0
    assert ("", "") == capsys.readouterr()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_accepted(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its subcommand, options and values exist, and what is required is given."""
    shown = commands((ROOT / page).read_text())
    assert [] == [(shlex.join(each), capsys.readouterr().err) for each in shown if status(each) != 0]


def test_a_wrong_command_is_found() -> None:
    """An option that is missing or unknown, in an example and in a sentence."""
    example = '    .venv/bin/infrasage-collector query "SELECT 1" --data-dir data  # all\n'
    assert [["query", "SELECT 1", "--data-dir", "data"]] == commands(example)
    for text in ("    $ infrasage-collector keys create --tenant acme\n", "Run `infrasage-collector nonsense list`."):
        (arguments,) = commands(text)
        assert status(arguments) == 2
    assert sum(len(commands((ROOT / page).read_text())) for page in PAGES) > 40


def test_the_usage_that_the_api_page_shows_has_the_plan_that_is_in_force() -> None:
    """What `/api/v1/usage` answers for a tenant on Free."""
    text = (ROOT / "docs" / "use" / "api.md").read_text()
    (shown,) = re.findall(r'^    (\{"tenant": "acme", "plan": .*?\}\})$', text, re.MULTILINE | re.DOTALL)
    free = Settings().plans_by_name()["Free"]
    rates = {"requests": free.requests, "items": free.items, "bytes": free.size_bytes}
    expected = {name: {"per_s": rate.per_s, "burst": rate.burst} for name, rate in rates.items() if rate is not None}
    assert {"name": "Free", **expected} == json.loads(shown)["plan"]


@pytest.mark.parametrize("page", ["README.md", "docs/operate/installing.md"])
def test_the_number_of_packages_is_that_of_the_lock_file(page: str) -> None:
    """Counted as deploy/install.py prints it."""
    locked = re.findall(r"(?m)^[A-Za-z0-9._-]+==", (ROOT / "requirements.lock").read_text())
    assert [str(len(locked))] == re.findall(r"installs (\d+) packages", (ROOT / page).read_text())
