"""What a request costs: the bytes of its rows, or of its body where those are more."""

from support.fakes.receiving import NOW_UNIX_NANO
from support.limits import DEFAULT

from adapters.record import Header
from collector.ingest.validate import LimitRules
from collector.receivers.http.telemetry_request import Format
from collector.receivers.routes import http_routes


def cost_of(path: str, content_type: str, body: bytes, tenant: str = "acme") -> int:
    """Of a body, decompressed, by the HTTP route that takes it. A row has its tenant's name, so the cost depends on it."""
    format_ = http_routes(10_000)[path].format(content_type.encode())
    assert isinstance(format_, Format)
    header = Header(tenant, format_.input.source, NOW_UNIX_NANO, bytes(16))
    adapted = format_.input.adapt(body, header, LimitRules(DEFAULT, NOW_UNIX_NANO), 508 << 10)
    return max(len(body), adapted.row_bytes)
