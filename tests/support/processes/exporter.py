"""A Prometheus exporter whose numbers are known: it counts its scrapes. It speaks Prometheus's protobuf format, put together by
hand, since no Python client has native histograms; after so many scrapes it fails, and every series ends with a stale marker.
"""

import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

from support.references.remote_write import length_delimited, varint

CONTENT_TYPE: Final = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
# When everything began to count, in seconds.
START_S: Final = 1_775_000_000
BOUNDS: Final = (0.5, 1.5)

_COUNTER, _GAUGE, _HISTOGRAM = 0, 1, 4


class Exporter:
    """Of /native and /classic, which are the same, `scrapes` each. Use as a context."""

    def __init__(self, scrapes: int) -> None:
        served: Counter[str] = Counter()
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    served[self.path] += 1
                    scrape = served[self.path]
                if scrape > scrapes:
                    self.send_error(503)
                    return
                body = exposition(scrape)
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server: Final = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread: Final = threading.Thread(target=self._server.serve_forever)
        self.port: Final = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def exposition(scrape: int) -> bytes:
    """`requests_total`, `temperature`, the native histogram `latency_seconds` and the classic one `size_bytes`."""
    exemplar = _exemplar(scrape)
    start = _timestamp(START_S)
    counter = _double(1, scrape) + length_delimited(2, exemplar) + length_delimited(3, start)
    native = b"".join(
        [
            b"\x08" + varint(scrape),
            _double(2, scrape * 1.5),
            b"\x28\x00",  # schema 0: its first bucket ends at 1, the next at 2
            _double(6, 1e-128),
            length_delimited(12, b"\x08\x02\x10\x01"),  # a span of one bucket, that at 1
            length_delimited(13, varint(scrape << 1)),
            length_delimited(15, start),
            length_delimited(16, exemplar),
        ]
    )
    classic = b"\x08" + varint(2 * scrape) + _double(2, scrape * 1.25)
    for bound, count in zip(BOUNDS, (scrape, 2 * scrape), strict=True):
        classic += length_delimited(3, b"\x08" + varint(count) + _double(2, bound))
    classic += length_delimited(15, start)
    families = [
        _family("requests_total", "Requests answered.", _COUNTER, length_delimited(3, counter)),
        _family("temperature", "Of a room.", _GAUGE, length_delimited(2, _double(1, -scrape))),
        _family("latency_seconds", "How long it takes.", _HISTOGRAM, length_delimited(7, native), unit="seconds"),
        _family("size_bytes", "How large it is.", _HISTOGRAM, length_delimited(7, classic), unit="bytes"),
    ]
    return b"".join(varint(len(family)) + family for family in families)


def _family(name: str, help_: str, type_: int, metric: bytes, unit: str = "") -> bytes:
    zone = length_delimited(1, length_delimited(1, b"zone") + length_delimited(2, b"a"))
    body = length_delimited(1, name.encode()) + length_delimited(2, help_.encode()) + b"\x18" + varint(type_)
    return body + length_delimited(4, zone + metric) + (length_delimited(5, unit.encode()) if unit else b"")


def _exemplar(scrape: int) -> bytes:
    label = length_delimited(1, b"trace_id") + length_delimited(2, f"{scrape:032x}".encode())
    return length_delimited(1, label) + _double(2, scrape) + length_delimited(3, _timestamp(time.time()))


def _timestamp(seconds: float) -> bytes:
    """google.protobuf.Timestamp."""
    return b"\x08" + varint(int(seconds)) + b"\x10" + varint(int(seconds % 1 * 1e9))


def _double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)
