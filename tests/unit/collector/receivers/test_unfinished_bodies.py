"""collector/receivers/unfinished_bodies.py: whose requests and connections may wait for the rest of a body."""

import pytest

from collector.config.receivers import Grpc, Http
from collector.ingest.produce import Overloaded, ShareExceeded
from collector.receivers.unfinished_bodies import ConnectionBodies, UnfinishedBodies


def http(connections_max: int, requests_max: int = 1_000) -> UnfinishedBodies:
    return UnfinishedBodies(Http(connections_max=connections_max, concurrent_requests_max=requests_max))


def test_one_tenant_leaves_room_for_another() -> None:
    """It has at most 18 of 20 connections. Another tenant has the rest, and up to its half."""
    bodies = http(20)
    of_acme = [ConnectionBodies(bodies) for _ in range(18)]
    for connection in of_acme:
        connection.begin("acme")
    with pytest.raises(ShareExceeded, match=r"18 connections of tenant acme .* is 10: half of http.connections_max = 20"):
        ConnectionBodies(bodies).begin("acme")
    others = [ConnectionBodies(bodies) for _ in range(2)]
    for connection in others:
        connection.begin("other")
    with pytest.raises(Overloaded, match=r"20 connections wait for the rest of a body, and at most 20 may"):
        ConnectionBodies(bodies).begin("other")
    for connection in of_acme[:9]:
        connection.end("acme")
    ConnectionBodies(bodies).begin("acme")


def test_one_tenants_requests_leave_room_for_anothers() -> None:
    """They do on one connection as well."""
    bodies = UnfinishedBodies(Grpc(concurrent_requests_max=20))
    connection = ConnectionBodies(bodies)
    for _ in range(18):
        connection.begin("acme")
    with pytest.raises(ShareExceeded, match=r"18 requests of tenant acme .* half of grpc.concurrent_requests_max = 20"):
        connection.begin("acme")
    connection.begin("other")
    connection.end("acme")
    connection.end("other")
    connection.begin("acme")


def test_requests_are_bounded() -> None:
    """Those of all tenants together."""
    bodies = http(100, 10)
    for number in range(10):
        ConnectionBodies(bodies).begin(f"tenant {number}")
    with pytest.raises(Overloaded, match=r"10 requests wait .* at most 10 may \(http.concurrent_requests_max\)"):
        ConnectionBodies(bodies).begin("another")


@pytest.mark.parametrize("connections_max", [1, 2, 9])
def test_few_connections_are_all_one_tenants(connections_max: int) -> None:
    bodies = http(connections_max)
    for _ in range(max(1, int(connections_max * 0.9))):
        ConnectionBodies(bodies).begin("acme")


def test_a_connection_counts_once() -> None:
    """It counts for the tenant that began first, until the last of its bodies is whole."""
    bodies = http(2)
    connection, other = ConnectionBodies(bodies), ConnectionBodies(bodies)
    for _ in range(100):
        connection.begin("acme")
    with pytest.raises(ShareExceeded):
        other.begin("acme")
    for _ in range(100):
        connection.end("acme")
    assert (bodies.connections.all, bodies.requests.all) == (0, 0)
    other.begin("acme")
