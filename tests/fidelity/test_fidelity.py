"""What is stored is what was sent, field by field: any request, by every way in, through the running program."""

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from uuid import UUID

import pytest
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from support.fidelity import KINDS, SETTINGS, WAYS, Clients, Delivered, Way, clients, deliver, generated, header_of
from support.processes.program import Program, started
from support.references.differences import NOTHING, differences, paths, spoilt

Requests = Callable[[str], list[Any]]
Deliver = Callable[[Way], list[Delivered]]

EACH_WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.kind}-{way.name}".replace(" ", "-"))
# One way each is enough to see that a difference would be found: the first.
EACH_KIND = pytest.mark.parametrize(
    "way", {way.kind: way for way in reversed(WAYS)}.values(), ids=lambda way: way.kind.replace(" ", "-")
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    command = Program(tmp_path_factory.mktemp("fidelity") / "data", **SETTINGS)
    with started(command) as running, clients(running) as connected:
        yield connected


@pytest.fixture(scope="module")
def requests(pytestconfig: pytest.Config) -> Requests:
    """Of a kind so many that so many items are in them; made at the first call."""
    items_min = pytestconfig.getoption("fidelity_items")
    first_seed = pytestconfig.getoption("fidelity_seed")

    @cache
    def of(kind: str) -> list[Any]:
        return generated(KINDS[kind], items_min, first_seed)

    return of


@pytest.fixture(scope="module")
def delivered(program: Clients, requests: Requests) -> Deliver:
    """Send those of its kind by a way; at the first call."""

    @cache
    def by(way: Way) -> list[Delivered]:
        return deliver(program, way, requests(way.kind))

    return by


@EACH_WAY
def test_what_is_stored_is_what_was_sent(way: Way, delivered: Deliver, pytestconfig: pytest.Config) -> None:
    """Every item that may be kept is there once, equal in every field; nothing else is; and the receipts say so."""
    requests = delivered(way)
    count = sum(len(request.expected) for request in requests)
    found = [difference for request in requests for difference in request.differences()]
    print(f"{way.kind} by {way.name}: {count} items in {len(requests)} requests, {len(found)} differences")
    assert [] == found
    assert count >= pytestconfig.getoption("fidelity_items") // KINDS[way.kind].part


@EACH_KIND
def test_any_field_that_differed_would_be_found(way: Way, delivered: Deliver) -> None:
    """In what is expected, one of each field is changed, as little as can be: that, and only that, is reported."""
    places: dict[str, tuple[Delivered, int]] = {}
    for request in delivered(way):
        for n, item in enumerate(request.expected):
            for path in paths(TelemetryRecordV1.FromString(item)):
                places.setdefault(path, (request, n))
    for path, (request, n) in places.items():
        expected = list(request.expected)
        expected[n] = spoilt(expected[n], path)
        assert [path] == [difference.path for difference in differences(expected, request.found)]


@EACH_KIND
def test_an_item_lost_doubled_or_invented_would_be_found(way: Way, delivered: Deliver) -> None:
    """Each is reported as an item that is missing, or one too many."""
    request = max(delivered(way), key=lambda request: len(request.expected))
    one = str(TelemetryRecordV1.FromString(request.found[0]))
    assert [("", one, NOTHING)] == differences(request.expected, request.found[1:])
    assert [("", NOTHING, one)] == differences(request.expected, [request.found[0], *request.found])
    assert [("", NOTHING, one)] == differences(request.expected[:0], request.found[:1])


@pytest.mark.parametrize("name", KINDS)
def test_every_field_was_sent(name: str, requests: Requests) -> None:
    """OTLP's and remote write's own descriptors decide: a field that a later version adds is missed until it is stored."""
    kind = KINDS[name]
    header = header_of(UUID(int=1), time.time_ns())
    sent = [kind.fields_of(request, kind.expected(request, header)) for request in requests(name)]
    assert kind.fields == set().union(*sent)


@pytest.mark.parametrize("name", ["metrics", "logs", "traces"])
def test_attributes_of_every_kind_were_sent(name: str, requests: Requests) -> None:
    """Texts, numbers, bytes, lists and maps."""
    names = {part for request in requests(name) for path in paths(request) for part in path.split(".")}
    assert set() == {field.name for field in AnyValue.DESCRIPTOR.fields} - names
