"""The pages for contributors: what they name is there; and what a run says about the tests that it skipped."""

import ast
import re
from pathlib import Path

import pytest
from support.skips import needs, summary

ROOT = Path(__file__).parents[2]
PAGES = (
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/adr/README.md",
    "docs/contribute/testing.md",
    "docs/internals/architecture.md",
    "docs/internals/data-path.md",
    "docs/internals/glossary.md",
    "collector/broker/kafka/README.md",
    "collector/http2/README.md",
    "collector/receivers/http/README.md",
)
_PATH = re.compile(r"(?<![\w./-])(?:\.ci|adapters|bench|collector|deploy|docs|proto|tests)/[\w./-]*\w")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_TARGET = re.compile(r"`make ([a-z][a-z-]*)|^    make ([a-z][a-z-]*)", re.MULTILINE)
_CALL = re.compile(r"^(?:thread)?\s*(\S+\.py)  ([\w.]+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_target_that_a_page_names_exists(page: str) -> None:
    """Paths from the root, links from the page, modules beside a package's README, and targets of make."""
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    paths = {path for path in _PATH.findall(text) if not (ROOT / path).exists()}
    links = {link for link in _LINK.findall(text) if "://" not in link and not (folder / link).exists()}
    beside = set()
    if page.startswith("collector/"):
        names = re.findall(r"`([a-z0-9_]+\.py|[a-z0-9_]+/(?:[a-z0-9_]+\.py)?)`", text)
        beside = {name for name in names if not (folder / name).exists()}
    targets = {one or other for one, other in _TARGET.findall(text)} - _targets()
    assert (set(), set(), set(), set()) == (paths, links, beside, targets)


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_function_of_the_data_path_is_where_the_page_says() -> None:
    """Each line of the traces is a file and a function or method that it defines."""
    calls = _CALL.findall((ROOT / "docs/internals/data-path.md").read_text())
    assert len(calls) > 80
    assert [] == [call for call in calls if call[1] not in _defined(ROOT / call[0])]


def _defined(module: Path) -> set[str]:
    found = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


def test_the_index_of_decisions_has_each_file_once_and_each_number_without_one() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    files = sorted(path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert files == re.findall(r"^\| \[\d{4}\]\(([^)]+)\) \|", index, re.MULTILINE)
    numbers = {int(name[:4]) for name in files}
    missing = set(range(1, max(numbers) + 1)) - numbers
    (unused,) = re.findall(r"^([\d, ]+ and \d+) were reserved", index, re.MULTILINE)
    replaced = {int(number) for number in re.findall(r"^\| (\d{4}) \|", index, re.MULTILINE)}
    assert missing == replaced | {int(number) for number in re.findall(r"\d+", unused)}


@pytest.mark.parametrize(
    ("node_id", "imports", "parameters", "expected"),
    [
        ("tests/integration/kafka/test_kafka.py::test_one", [], [], {"kafka"}),
        ("tests/integration/gateway/test_http.py::test_one", ["asyncio"], [], set()),
        ("tests/integration/gateway/test_external_tools.py::test_one", ["support.processes.program"], [], {"program"}),
        ("tests/unit/collector/store/test_x.py::test_one", ["collector.store.clickhouse"], [], {"clickhouse"}),
        ("tests/contracts/test_limiter_contract.py::test_one[local]", ["support.processes.redis_server"], ["local"], set()),
        ("tests/contracts/test_limiter_contract.py::test_one[redis]", [], ["redis"], {"redis"}),
        ("tests/clients/test_sdks.py::test_one", [], [], {"clients"}),
    ],
)
def test_a_test_is_marked_with_what_it_needs(
    node_id: str, imports: list[str], parameters: list[str], expected: set[str]
) -> None:
    """The marks come from its folder, its parameter, or what its module imports."""
    assert expected <= needs(node_id, imports, parameters)
    if not expected:
        assert set() == needs(node_id, imports, parameters)


def test_the_summary_names_each_reason_once_and_how_to_run_the_tests() -> None:
    """Where it is not known how, the reason alone is shown."""
    redis = "Skipped: no redis-server (Debian's package of this name): this test did not run"
    assert summary([redis, "Skipped: something else", redis]) == [
        "2 skipped: no redis-server (Debian's package of this name): this test did not run",
        "    to run them: apt-get install redis-server",
        "1 skipped: something else",
    ]
