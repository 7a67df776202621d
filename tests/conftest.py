"""What every test has: bounded Hypothesis runs that do not depend on this machine's speed, and markers of what it needs.

It also decides which files begin first, and says at the end of a run what was skipped, why, and how to run it.
"""

import logging
import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from support.httpx_start import load_authorities_once
from support.skips import MARKERS, imported_modules, needs, summary
from support.store_templates import keep_for_this_run

from collector.runtime.heap import freeze

_IS_CI = bool(os.environ.get("CI"))
# Hypothesis may shrink an example for as long as a test may take. The timeout then ends it, and what is reported is an
# inconsistency of the strategy in place of the failure. So CI shows the example as found, with the line that reproduces it.
_SHRINKS = (Phase.shrink, Phase.explain)

settings.register_profile(
    "default",
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=_IS_CI,
    phases=[phase for phase in Phase if not (_IS_CI and phase in _SHRINKS)],
)
# For make test-soak: other examples each time, and many.
settings.register_profile("soak", settings.get_profile("default"), max_examples=500, derandomize=False)
# For what runs twice in one go, compiled and not.
settings.register_profile("again", settings.get_profile("default"), max_examples=15)
# For make test-fast: the same tests, a few examples of each.
settings.register_profile("fast", settings.get_profile("default"), max_examples=10)
settings.load_profile("default")
load_authorities_once()

# One file is one worker's. Those that take longest begin first, so that none is left alone with one at the end.
_FIRST = (
    "tests/system/test_chaos.py",
    "tests/system/test_gateway_",
    "tests/system/",
    "tests/unit/collector/writer/test_writer",
    "tests/integration/",
    "tests/fidelity/",
)
_WORKERS_MAX = 8  # an engine in each takes some hundred MB

# Under "make test", a make that a test starts would take over the outer one's options and say which directory it enters.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(_name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    fidelity = parser.getgroup("fidelity", "tests/fidelity")
    fidelity.addoption("--fidelity-items", type=int, default=500, help="items of each kind, by each way in")
    fidelity.addoption("--fidelity-seed", type=int, default=0, help="another number is other items")
    chaos = parser.getgroup("chaos", "tests/system/test_chaos.py")
    chaos.addoption("--chaos-seconds", type=int, default=0, help="every fault, then others for so long; 0: a short run")
    chaos.addoption("--chaos-only", default="", help="of the faults, those whose names have this in them")
    chaos.addoption("--chaos-seed", type=int, default=None, help="the same faults in the same order")


@pytest.hookimpl(tryfirst=True)  # before -m selects by the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    imports_of: dict[pytest.Module | None, set[str]] = {None: set()}
    for item in items:
        module = item.getparent(pytest.Module)
        if module is not None and module not in imports_of:
            imports_of[module] = imported_modules(vars(module.obj))
        imports = imports_of[module]
        callspec = getattr(item, "callspec", None)
        for marker in needs(item.nodeid, imports, callspec.id.split("-") if callspec is not None else ()):
            item.add_marker(marker)
    items.sort(key=lambda item: next((at for at, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST)))


def pytest_collection_finish() -> None:
    """Leave what collecting made out of garbage collections: it stays, and is much.

    Late in a run of the whole suite a full collection of a test worker's heap took 300 ms of CPU.
    """
    freeze()


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since most tests wait for processes."""
    return min(_WORKERS_MAX, (os.cpu_count() or 1) + 1)


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if not hasattr(config, "workerinput"):
        keep_for_this_run(config)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the broker that this process's tests shared, and leave the exit status for .ci/checks/second_try.py."""
    if not hasattr(session.config, "workerinput") and session.config.pluginmanager.hasplugin("cacheprovider"):
        session.config.cache.set("infrasage/exit_status", int(exitstatus))
    kafka = sys.modules.get("support.processes.kafka")
    if kafka is not None:
        kafka.close_shared()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was skipped, and how to run it; and what the selection by markers leaves out."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
    lines = summary(reasons)
    selected = str(config.option.markexpr)
    lines += [
        f"not selected (-m {selected!r}): {name}: {meaning}" for name, meaning in MARKERS.items() if name in selected.split()
    ]
    if lines:
        terminalreporter.section("what did not run, and how to run it")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command that ran in this process set up for it: the next tests capture log lines of every level.

    A logger that keeps what it was configured with (cache_logger_on_first_use) would keep it for them too.
    """
    configure = structlog.configure
    monkeypatch.setattr(structlog, "configure", lambda **given: configure(**given | {"cache_logger_on_first_use": False}))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)


@pytest.fixture
def frozen_heap() -> None:
    """Leave what other tests made out of garbage collections, as the collector does with what it has at its start."""
    freeze()
