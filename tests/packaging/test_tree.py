"""The tree: tests are found where their modules are."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests/unit"


def test_unit_tests_mirror_the_source() -> None:
    """`tests/unit/P/test_NAME.py`, or `test_NAME_ASPECT.py`, tests the module or package NAME of the folder P."""
    strays = [
        test.relative_to(ROOT).as_posix()
        for test in UNIT.rglob("test_*.py")
        if not _names_something(ROOT / test.parent.relative_to(UNIT), test.stem.removeprefix("test_"))
    ]
    assert [] == strays


def _names_something(folder: Path, name: str) -> bool:
    words = name.split("_")
    starts = {"_".join(words[:count]) for count in range(1, len(words) + 1)}
    return any((folder / f"{start}.py").is_file() or (folder / start).is_dir() for start in starts)


def test_no_two_classes_have_one_name() -> None:
    """A name in a log, a traceback or a sentence means one class."""
    homes: dict[str, list[str]] = {}
    for folder in ("adapters", "collector"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    homes.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert len(homes) > 300
    assert {} == {name: paths for name, paths in homes.items() if len(paths) > 1}
