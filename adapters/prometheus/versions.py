"""Refuse a body of remote write of which nothing is known. Most often it is of the version other than its Content-Type's."""

from typing import Final

from adapters.errors import INVALID_PROTOBUF, UNSUPPORTED_MEDIA_TYPE, Malformed, RequestRefused
from adapters.record import Adapted

V1_MEDIA_TYPE: Final = "application/x-protobuf"
V2_MEDIA_TYPE: Final = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
# The fields of the other version: those of the one are reserved in the other.
_OTHERS: Final = {
    "WriteRequest has no field 4": f"the body is remote write 2.0: its Content-Type must be {V2_MEDIA_TYPE}",
    "WriteRequest has no field 5": f"the body is remote write 2.0: its Content-Type must be {V2_MEDIA_TYPE}",
    "Request has no field 1": f"the body is remote write 1.0: its Content-Type must be {V1_MEDIA_TYPE}",
    "Request has no field 3": f"the body is remote write 1.0: its Content-Type must be {V1_MEDIA_TYPE}",
}


def refuse_unknown(adapted: Adapted) -> None:
    """Raises RequestRefused where nothing was taken of a body that has something."""
    unknown = adapted.unknown_fields
    if not unknown:
        return
    for field in unknown:
        if field in _OTHERS:
            raise RequestRefused(UNSUPPORTED_MEDIA_TYPE, _OTHERS[field])
    raise Malformed(INVALID_PROTOBUF, f"nothing was taken of the request: {'; '.join(unknown)}")
