"""collector/receivers/unfinished_bodies.py: whose connections may wait for the rest of a body."""

import pytest

from collector.ingest.produce import ShareExceeded
from collector.receivers.unfinished_bodies import ConnectionBodies, UnfinishedBodies


def test_one_tenant_leaves_room_for_another() -> None:
    """Of 20 connections it has at most 18; another tenant has the rest, and up to its half."""
    bodies = UnfinishedBodies(20, "http.connections_max")
    for _ in range(18):
        bodies.begin("acme")
    with pytest.raises(
        ShareExceeded, match=r"18 connections of tenant acme .*its share is 10: half of http.connections_max = 20"
    ):
        bodies.begin("acme")
    bodies.begin("other")
    bodies.end("other")
    for _ in range(10):
        bodies.begin("other")
    with pytest.raises(ShareExceeded):
        bodies.begin("other")
    for _ in range(9):
        bodies.end("acme")
    bodies.begin("acme")


@pytest.mark.parametrize("connections_max", [1, 2, 9])
def test_few_connections_are_all_one_tenants(connections_max: int) -> None:
    bodies = UnfinishedBodies(connections_max, "grpc.connections_max")
    for _ in range(max(1, int(connections_max * 0.9))):
        bodies.begin("acme")


def test_a_connection_counts_once() -> None:
    """For the tenant that began first, until the last of its bodies is whole."""
    bodies = UnfinishedBodies(2, "grpc.connections_max")
    connection, other = ConnectionBodies(bodies), ConnectionBodies(bodies)
    for _ in range(100):
        connection.begin("acme")
    with pytest.raises(ShareExceeded):
        other.begin("acme")
    for _ in range(100):
        connection.end()
    other.begin("acme")
