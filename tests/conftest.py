"""What every test has: bounded Hypothesis runs that do not depend on this machine's speed; and which files begin first."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

_IS_CI = bool(os.environ.get("CI"))
# Hypothesis may shrink an example for as long as a test may take. The timeout then ends it, and what is reported is an
# inconsistency of the strategy in place of the failure. So CI shows the example as found, with the line that reproduces it.
_SHRINKS = (Phase.shrink, Phase.explain)

settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=_IS_CI,
    phases=[phase for phase in Phase if not (_IS_CI and phase in _SHRINKS)],
)
# For what runs twice in one go, compiled and not.
settings.register_profile("again", settings.get_profile("default"), max_examples=25)
settings.load_profile("default")

# One file is one worker's. Those that take longest begin first, so that none is left alone with one at the end.
_FIRST = (
    "tests/system/test_chaos.py",
    "tests/system/test_gateway_writer.py",
    "tests/system/",
    "tests/unit/collector/writer/test_writer",
    "tests/integration/",
    "tests/fidelity/",
)
_WORKERS_MAX = 8  # an engine in each takes some hundred MB


def pytest_addoption(parser: pytest.Parser) -> None:
    fidelity = parser.getgroup("fidelity", "tests/fidelity")
    fidelity.addoption("--fidelity-items", type=int, default=500, help="items of each kind, by each way in")
    fidelity.addoption("--fidelity-seed", type=int, default=0, help="another number is other items")
    chaos = parser.getgroup("chaos", "tests/system/test_chaos.py")
    chaos.addoption("--chaos-seconds", type=int, default=0, help="every fault, then others for so long; 0: a short run")
    chaos.addoption("--chaos-only", default="", help="of the faults, those whose names have this in them")
    chaos.addoption("--chaos-seed", type=int, default=None, help="the same faults in the same order")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((at for at, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST)))


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since most tests wait for processes."""
    return min(_WORKERS_MAX, (os.cpu_count() or 1) + 1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clients: drives clients of other languages, which are built first; make test-clients")


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Leave what other tests made out of garbage collections, as the collector does with what it has at its start.

    Late in a run of the whole suite a full collection of a test worker's heap takes 300 ms of CPU.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
