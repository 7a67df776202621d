"""TLS contexts of servers, without a network: two ends whose bytes are passed on in memory."""

import ssl
import tracemalloc

import trustme

from collector.receivers.transport.tls_context import ServerContext

RECORD_BYTES_MAX = 1 << 14


def ends() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.SSLObject]:
    """Return a server's end, what that end has received, and a client's end, after their handshake."""
    authority = trustme.CA()
    of_server, of_client = ServerContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("server.example").configure_cert(of_server)
    authority.configure_trust(of_client)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = of_server.wrap_bio(to_server, to_client, server_side=True)
    client = of_client.wrap_bio(to_client, to_server, server_hostname="server.example")
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return server, to_server, client


def test_a_read_has_room_for_one_record() -> None:
    """It has it however much the reader allows: uvloop allows 256 KiB."""
    server, received, client = ends()
    sent = bytes(range(256)) * 160
    for begin in range(0, len(sent), RECORD_BYTES_MAX):
        client.write(sent[begin : begin + RECORD_BYTES_MAX])
    pieces = []
    tracemalloc.start()
    try:
        while received.pending or server.pending():
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            pieces.append(server.read(1 << 18))
            assert tracemalloc.get_traced_memory()[1] - before < RECORD_BYTES_MAX + 2048
    finally:
        tracemalloc.stop()
    assert sent == b"".join(pieces)
    assert [RECORD_BYTES_MAX, RECORD_BYTES_MAX, len(sent) - 2 * RECORD_BYTES_MAX] == [len(piece) for piece in pieces]


def test_a_read_into_a_buffer() -> None:
    """It works as BufferedProtocol reads."""
    server, _, client = ends()
    client.write(b"some data")
    buffer = bytearray(100)
    server.read(100, buffer)
    assert b"some data" + bytes(91) == buffer
