"""Decides by the head of a gRPC request how it is handled: as a call with telemetry, as another call, or as a refusal."""

from typing import Final

from collector.http2.headers import RequestHead, encode
from collector.receivers.grpc.health import CHECK_PATH
from collector.receivers.grpc.services import Methods
from collector.receivers.grpc.status import trailers
from collector.receivers.grpc.stream_call import Handler
from collector.receivers.grpc.timeouts import Timeout
from collector.receivers.grpc.unary_call import CallHead
from collector.receivers.refusals import printable
from collector.receivers.rpc_codes import RPC_INVALID_ARGUMENT, RPC_RESOURCE_EXHAUSTED, RPC_UNIMPLEMENTED
from collector.receivers.transport.fields import joined

_CONTENT_TYPE: Final = b"application/grpc"
STATUS_200: Final = encode(b":status", b"200") + encode(b"content-type", _CONTENT_TYPE)
_PLAINTEXT: Final = encode(b"content-type", b"text/plain; charset=utf-8")
_NO_GRPC: Final = encode(b":status", b"415") + _PLAINTEXT
_NO_POST: Final = encode(b":status", b"405") + encode(b"allow", b"POST") + _PLAINTEXT


def http_elsewhere(places: str) -> bytes:
    """Return the answer's text for an HTTP client that uses the gRPC port. `places` are the ports for HTTP."""
    return f"This port is for OTLP over gRPC, in HTTP/2. OTLP over HTTP is taken on {places}.\n".encode()


class RefusedHead:
    """The answer to a head that does not become a call."""

    def __init__(self, block: bytes, *, has_text: bool = False) -> None:
        """If `has_text`, the answer has the text of `http_elsewhere` as its body. That is for requests that are not gRPC,
        except HEAD."""
        self.block: Final = block
        self.has_text: Final = has_text


class OtherCall:
    """A call of a method that takes no telemetry: health or reflection."""

    def __init__(self, handler: Handler, timeout_s: float, *, is_check: bool) -> None:
        """`is_check` is whether the call is health's Check. It is never refused because other connections have open calls:
        otherwise an orchestrator would restart the collector."""
        self.handler: Final = handler
        self.timeout_s: Final = timeout_s
        self.is_check: Final = is_check


def meaning_of(head: RequestHead, methods: Methods, header_bytes_max: int) -> CallHead | OtherCall | RefusedHead:
    """Return how the head of a request is handled."""
    if head.size_bytes > header_bytes_max:
        message = f"the metadata is {head.size_bytes} bytes; at most {header_bytes_max} are taken (grpc.header_bytes_max)"
        return RefusedHead(STATUS_200 + trailers(RPC_RESOURCE_EXHAUSTED, message))
    if head.method != b"POST":
        return RefusedHead(_NO_POST, has_text=head.method != b"HEAD")
    content_type = b""
    for name, value in head.headers:
        if name == b"content-type":
            content_type = value
            break
    if not content_type.startswith(_CONTENT_TYPE) or content_type[len(_CONTENT_TYPE) :][:1] not in (b"", b"+", b";"):
        return RefusedHead(_NO_GRPC, has_text=True)
    odd_type = ""
    if content_type[len(_CONTENT_TYPE) :].partition(b";")[0] not in (b"", b"+proto"):
        shown = printable(content_type.decode("latin-1"))
        odd_type = f"content-type {shown} is not taken; application/grpc and application/grpc+proto are"
    method = methods.exports.get(head.path)
    if method is not None:
        return CallHead(method, head.headers, odd_type)
    if odd_type:
        return RefusedHead(STATUS_200 + trailers(RPC_UNIMPLEMENTED, odd_type))
    handler = methods.others.get(head.path)
    if handler is not None:
        timeout = _timeout(head)
        if timeout.problem:
            return RefusedHead(STATUS_200 + trailers(RPC_INVALID_ARGUMENT, timeout.problem))
        return OtherCall(handler, timeout.seconds, is_check=head.path == CHECK_PATH)
    path = printable(head.path.decode("utf-8", "replace"))
    return RefusedHead(STATUS_200 + trailers(RPC_UNIMPLEMENTED, f"the method {path} does not exist"))


def _timeout(head: RequestHead) -> Timeout:
    value: bytes | None = None
    for name, next_value in head.headers:
        if name == b"grpc-timeout":
            value = joined(value, next_value)
    return Timeout(value)
