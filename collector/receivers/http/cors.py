"""CORS, by which browsers let pages of other origins send telemetry, and read the answers (WHATWG Fetch).

Invariants:
1. Only a page of an allowed origin can read an answer, and then every answer: also errors, and those of the servers themselves
   (test_every_answer_says_that_the_origin_may_read_it, test_another_origin_hears_nothing,
   test_answers_of_the_servers_themselves_say_it_too).
2. A preflight request needs no key, and is answered the same for every path, so that a page can read the error for a wrong
   path (test_a_preflight_is_answered).

Answers allow credentials, since navigator.sendBeacon always asks for that. Nothing here reads a cookie: a key is in a header or
in the query.
"""

from collections.abc import Iterable
from typing import Final

from adapters.errors import ORIGIN_NOT_ALLOWED, RequestRefused
from collector.config.receivers import Http
from collector.receivers.http.targets import METHOD, VALUE_BYTES_MAX
from collector.receivers.responses import Answer
from collector.tenancy.origins import Origins

Headers = tuple[tuple[bytes, bytes], ...]

# The headers that SDKs for the web send: those of the specifications, of OpenTelemetry's propagators, and ours.
_ALLOWED_HEADERS: Final = (
    *("accept", "authorization", "content-encoding", "content-type", "idempotency-key", "x-api-key"),
    *("baggage", "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"),
    *("x-b3-flags", "uber-trace-id", "user-agent", "x-user-agent", "x-requested-with", "x-prometheus-remote-write-version"),
)
_EXPOSED_HEADERS: Final = (
    b"retry-after, x-infrasage-batch-id, x-infrasage-repaired, x-infrasage-rejected-not-kept,"
    b" x-prometheus-remote-write-samples-written, x-prometheus-remote-write-histograms-written,"
    b" x-prometheus-remote-write-exemplars-written"
)
_VARY: Final = (b"vary", b"origin")
_SHOWN_BYTES_MAX: Final = 100


class Cors:
    """The origins whose pages may send, and the headers that say so."""

    def __init__(self, origins: Origins, headers: Iterable[str], max_age_s: int) -> None:
        """`headers` are further ones that pages may set; `*` is any. A browser remembers a preflight for `max_age_s`."""
        further = [name.lower() for name in headers]
        self._origins: Final = origins
        self._allows_any_header: Final = "*" in further
        names = ", ".join(dict.fromkeys([*_ALLOWED_HEADERS, *(name for name in further if name != "*")]))
        self._allowed_headers: Final = names.encode()
        self._max_age: Final = b"%d" % max_age_s

    def headers(self, origin: bytes) -> Headers:
        """Return the headers of an answer to that origin; none if the request had no Origin header."""
        if not origin:
            return ()
        if not self._origins.allows(origin):
            return (_VARY,)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
            _VARY,
        )

    def headers_for_anybody(self) -> Headers:
        """Return the headers of an answer that is sent before a request was read. Pages can read it only if all origins may."""
        return ((b"access-control-allow-origin", b"*"),) if self._origins.allows_all else ()

    def preflight(self, origin: bytes, requested_headers: bytes, *, asks_private_network: bool) -> Answer:
        """Return the answer to a preflight request. Raises RequestRefused."""
        if not self._origins.allows(origin):
            shown = origin[:_SHOWN_BYTES_MAX].decode("latin-1")
            raise RequestRefused(
                ORIGIN_NOT_ALLOWED, f"pages of origin {shown} may not send; http.cors_origins lists those that may"
            )
        allowed = self._allowed_headers
        if self._allows_any_header and len(requested_headers) <= VALUE_BYTES_MAX:
            asked = [name.strip() for name in requested_headers.split(b",")]
            allowed = b", ".join([allowed, *(name for name in asked if METHOD.fullmatch(name))])
        headers = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", allowed),
            (b"access-control-max-age", self._max_age),
            (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
        ]
        if asks_private_network:
            headers.append((b"access-control-allow-private-network", b"true"))
        return Answer(204, b"", b"", tuple(headers))


def cors_of(settings: Http) -> Cors | None:
    """Return the CORS of the settings; None if no page of another origin may send."""
    if not settings.cors_origins:
        return None
    return Cors(
        Origins(settings.cors_origins.split(",")), filter(None, settings.cors_headers.split(",")), settings.cors_max_age_s
    )
