"""Write the trailers of a call: gRPC's status, its message, and further fields of a batch or an error.

Source: gRPC's PROTOCOL-HTTP2.md.
"""

import binascii
from typing import Final
from urllib.parse import quote_from_bytes

from collector.http2.headers import encode
from collector.ingest.pipeline import Outcome
from collector.receivers.encodings import GRPC_NAMES
from collector.receivers.refusals import Refusal
from collector.receivers.responses import receipt_headers, rpc_status

# The most bytes of an encoded message. A head has further fields, and some clients take no more than 8 KiB.
_MESSAGE_BYTES_MAX: Final = 2048
_MESSAGE_CHARS_CUT: Final = 200
_UNQUOTED: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
ACCEPTED: Final = (b"grpc-accept-encoding", GRPC_NAMES)

# The head of an answer.
OK_HEAD: Final = encode(b":status", b"200") + encode(b"content-type", b"application/grpc") + encode(*ACCEPTED)
# The trailers of a successful call, without further fields.
OK_TRAILERS: Final = encode(b"grpc-status", b"0")


def accepted(outcome: Outcome) -> bytes:
    """Return the trailers of a taken request, with the fields that are headers in HTTP."""
    block = OK_TRAILERS
    for name, value in receipt_headers(outcome):
        block += encode(name, value)
    return block


def trailers(code: int, message: str) -> bytes:
    """Return the encoded trailers of a call that ends with a code of google.rpc and a message."""
    return encode(b"grpc-status", b"%d" % code) + encode(b"grpc-message", quoted(message))


def refused(refusal: Refusal) -> bytes:
    """Return the trailers of a refused request, with all details of the error."""
    details = binascii.b2a_base64(rpc_status(refusal), newline=False).rstrip(b"=")
    return trailers(refusal.codes.grpc, refusal.message) + encode(b"grpc-status-details-bin", details)


def quoted(message: str) -> bytes:
    """Return the message percent-encoded, and cut to a length that every client takes."""
    text = quote_from_bytes(message.encode("utf-8", "replace"), _UNQUOTED)
    if len(text) > _MESSAGE_BYTES_MAX:
        text = quote_from_bytes((message[:_MESSAGE_CHARS_CUT] + "…").encode("utf-8", "replace"), _UNQUOTED)
    return text.encode("ascii")
