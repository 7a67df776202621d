"""What a test needs, as markers, and what a run says at its end about the tests that it skipped.

Invariants:
1. A test that needs Kafka, ClickHouse, Redis or whole programs has the marker of that name, by its folder, its parameter or
   what its module imports (test_a_test_is_marked_with_what_it_needs).
2. Each reason for a skip is shown once, with the number of tests and, where it is known, how to run them
   (test_the_summary_names_each_reason_once_and_how_to_run_the_tests).
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

MARKERS: Final = {
    "kafka": "needs Kafka, which needs Java and Kafka's jars",
    "clickhouse": "needs ClickHouse: its engine in this process, or a server",
    "redis": "needs redis-server",
    "program": "starts whole programs, or builds the package",
    "slow": "takes more than 5 s",
    "large": "reads bodies of megabytes, which takes uncompiled code seconds",
    "soak": "does at length what another test does in short: make test-soak",
    "clients": "drives clients of other languages, which are built first: make test-clients",
}

_BY_FOLDER: Final = (
    ("tests/integration/kafka/", "kafka"),
    ("tests/integration/clickhouse/", "clickhouse"),
    ("tests/integration/redis/", "redis"),
    ("tests/clients/", "clients"),
    ("tests/system/", "program"),
    ("tests/fidelity/", "program"),
    ("tests/packaging/test_packaging.py", "program"),
    ("tests/packaging/test_systemd.py", "program"),
    ("tests/fuzz/", "slow"),
    ("tests/contracts/test_broker_contract.py", "slow"),
    ("tests/unit/collector/broker/local_log/test_log_damage.py", "slow"),
    ("tests/unit/collector/broker/local_log/test_log_model.py", "slow"),
)
_BY_IMPORT: Final = (
    ("support.processes.kafka", "kafka"),  # and kafka_cluster
    ("support.processes.redis_server", "redis"),
    ("support.processes.clickhouse_server", "clickhouse"),
    ("collector.store.clickhouse", "clickhouse"),
    ("support.reopened_store", "clickhouse"),
    ("support.processes.", "program"),
)
# The suites of tests/contracts run against each implementation, which is a parameter.
_CONTRACTS: Final = "tests/contracts/"
_BY_PARAMETER: Final = {
    "kafka": "kafka",
    "embedded": "clickhouse",
    "server": "clickhouse",
    "redis": "redis",
    "redis is away": "redis",
}

# A part of the reason for a skip, and how to run the test all the same.
_HOW: Final = (
    ("redis-server", "apt-get install redis-server"),
    ("curl", "apt-get install curl"),
    ("nginx", "apt-get install nginx"),
    ("haproxy", "apt-get install haproxy"),
    ("chromium", "apt-get install chromium"),
    ("Kafka", "install Java 17 or newer and Maven (apt-get install default-jre-headless maven)"),
    ("PEERS", "build the programs with .ci/peers, or let PEERS name the folder that has them"),
    ("the compiled build", "make test, which installs the compiled package; make test-one and make test-fast run the source"),
    ("a ClickHouse server", "let CLICKHOUSE_URL name a server (tests/support/processes/clickhouse_server.py)"),
    ("root", "run the tests as root, in a container"),
)


def needs(node_id: str, imports: Iterable[str], parameters: Iterable[str]) -> set[str]:
    """Return the markers of a test. `imports`: the modules that its module takes names from."""
    found = {marker for start, marker in _BY_FOLDER if node_id.startswith(start)}
    if node_id.startswith(_CONTRACTS):
        return found | {_BY_PARAMETER[parameter] for parameter in parameters if parameter in _BY_PARAMETER}
    return found | _by_import(frozenset(imports))


@functools.cache  # the tests of a module have one set of imports
def _by_import(imports: frozenset[str]) -> frozenset[str]:
    return frozenset(marker for module in imports for start, marker in _BY_IMPORT if module.startswith(start))


def imported_modules(namespace: Mapping[str, object]) -> set[str]:
    """Return the modules that the names of a module come from, as far as they say so."""
    return {
        name
        for value in namespace.values()
        for name in (getattr(value, "__module__", None), getattr(value, "__name__", None))
        if isinstance(name, str)
    }


def summary(reasons: Iterable[str]) -> list[str]:
    """Return the lines that say what was skipped, and how to run it."""
    lines = []
    for reason, count in sorted(Counter(reason.removeprefix("Skipped: ") for reason in reasons).items()):
        lines.append(f"{count} skipped: {reason}")
        lines += [f"    to run them: {how}" for part, how in _HOW if part in reason][:1]
    return lines
