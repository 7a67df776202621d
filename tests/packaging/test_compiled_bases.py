""".ci/checks/compiled_bases.py, which keeps interpreted classes from inheriting from compiled ones."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECK = runpy.run_path(str(ROOT / ".ci/checks/compiled_bases.py"))
compiled_classes: Callable[[list[str], Path], set[str]] = CHECK["compiled_classes"]
subclasses: Callable[[str, set[str]], Iterator[tuple[int, str]]] = CHECK["subclasses"]


@pytest.mark.parametrize(
    "source",
    [
        "from hot.page import Page\nclass Own(Page): ...",
        "from hot.page import Page as Base\nclass Own(Base): ...",
        "from hot import page\nclass Own(page.Page): ...",
        "import hot.page\nclass Own(hot.page.Page): ...",
        "import hot.page as page\nclass Own(page.Page): ...",
    ],
)
def test_an_interpreted_subclass_is_found(source: str) -> None:
    """It is found however the compiled class was imported."""
    assert [(2, "hot.page.Page")] == list(subclasses(source, {"hot.page.Page"}))


def test_what_no_compiled_class_is_may_be_inherited(tmp_path: Path) -> None:
    """A protocol, a tuple with names, an error without methods of its own, and what allows it."""
    (tmp_path / "page.py").write_text(
        dedent("""
            class Page: ...
            class Wire(Protocol): ...
            class Point(NamedTuple): ...
            class Refused(Exception): ...
            class Told(Exception):
                def __init__(self): ...
            @mypyc_attr(allow_interpreted_subclasses=True)
            class Open: ...
        """)
    )
    assert {"page.Page", "page.Told"} == compiled_classes(["page.py"], tmp_path)


def test_this_project_has_none() -> None:
    """Neither in the program nor in its tests."""
    assert 0 == CHECK["main"]()
