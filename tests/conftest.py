"""What every test has: bounded Hypothesis runs that do not depend on this machine's speed."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    fidelity = parser.getgroup("fidelity", "tests/fidelity")
    fidelity.addoption("--fidelity-items", type=int, default=500, help="items of each kind, by each way in")
    fidelity.addoption("--fidelity-seed", type=int, default=0, help="another number is other items")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clients: drives clients of other languages, which are built first; make test-clients")
