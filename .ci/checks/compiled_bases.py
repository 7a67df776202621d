"""Checks that no interpreted class inherits from a compiled one: mypyc makes such a class raise TypeError when it is used.

Uncompiled code does not show the error. So tests of the source pass, and the compiled program fails at the first request.

Usage: `python .ci/checks/compiled_bases.py`, from the project's root. Exit status 1: something was found.
"""

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INTERPRETED_FOLDERS = ("adapters", "collector", "tests", "bench")


def compiled_classes(compiled: list[str], root: Path = ROOT) -> set[str]:
    """Return the full names of the classes that setup.py compiles, except those that allow interpreted subclasses.

    Protocols, NamedTuples and enums are no native classes."""
    names = set()
    for name in compiled:
        module = name.removesuffix(".py").replace("/", ".")
        for node in ast.walk(ast.parse((root / name).read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).split("[")[0] for base in node.bases}
                open_ = any("allow_interpreted_subclasses" in ast.unparse(each) for each in node.decorator_list)
                # An exception without methods has no compiled method that requires its exact class.
                is_plain = "Exception" in bases and not any(isinstance(each, ast.FunctionDef) for each in node.body)
                if not open_ and not is_plain and not bases & {"Protocol", "NamedTuple", "Enum", "IntEnum"}:
                    names.add(f"{module}.{node.name}")
    return names


def subclasses(source: str, native: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the line of each class of a module that inherits from a class in `native`, and the full name of that class."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                first, _, rest = ast.unparse(base).partition(".")
                name = ".".join(filter(None, (imported.get(first, first), rest)))
                if name in native:
                    yield node.lineno, name


def main() -> int:
    """Print what was found, one finding a line. Return the exit status."""
    compiled: list[str] = runpy.run_path(str(ROOT / "setup.py"))["COMPILED"]
    native = compiled_classes(compiled)
    found = 0
    for folder in INTERPRETED_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.relative_to(ROOT).as_posix() in compiled:
                continue
            for line, base in subclasses(path.read_text(), native):
                found += 1
                print(f"{path.relative_to(ROOT)}:{line}: inherits from {base}, which is compiled")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
