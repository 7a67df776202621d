"""The invariants that modules list, each with the test that holds it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"\btest_\w+")
_DEFINED = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)


def test_every_test_that_a_module_names_exists() -> None:
    """A test that is renamed or removed takes its name in the modules with it. A name is that of a function or of a file."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files} | {name for path in files for name in _DEFINED.findall(path.read_text("utf-8"))}
    named: dict[str, str] = {}
    for folder in ("adapters", "collector", ".ci/checks"):
        for path in (ROOT / folder).rglob("*.py"):
            docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            named.update(dict.fromkeys(_NAMED.findall(docstring), str(path.relative_to(ROOT))))
    assert len(named) > 100
    assert {} == {name: path for name, path in named.items() if name not in there}
