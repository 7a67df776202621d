"""Refuse a body of remote write that has only unknown fields: most often, its Content-Type names the other version."""

from typing import Final

from adapters.errors import INVALID_PROTOBUF, UNSUPPORTED_MEDIA_TYPE, Malformed, RequestRefused
from adapters.record import Adapted

V1_MEDIA_TYPE: Final = "application/x-protobuf"
V2_MEDIA_TYPE: Final = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
_IS_V1: Final = f"the body is remote write 1.0: its Content-Type must be {V1_MEDIA_TYPE}"
_IS_V2: Final = f"the body is remote write 2.0: its Content-Type must be {V2_MEDIA_TYPE}"
# The fields of each version are reserved in the other.
_OTHERS: Final = {
    **dict.fromkeys(("WriteRequest has no field 4", "WriteRequest has no field 5"), _IS_V2),
    **dict.fromkeys(("Request has no field 1", "Request has no field 3"), _IS_V1),
}


def refuse_unknown(adapted: Adapted) -> None:
    """Raise RequestRefused if no item was found in a body that has unknown fields."""
    unknown = adapted.unknown_fields
    if not unknown:
        return
    for field in unknown:
        if field in _OTHERS:
            raise RequestRefused(UNSUPPORTED_MEDIA_TYPE, _OTHERS[field])
    raise Malformed(INVALID_PROTOBUF, f"nothing was taken of the request: {'; '.join(unknown)}")
