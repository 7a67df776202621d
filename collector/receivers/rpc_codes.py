"""The codes of google.rpc.Code that a gRPC call ends with."""

from typing import Final

NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""The names, by code."""

RPC_OK: Final = 0
RPC_CANCELLED: Final = 1
RPC_INVALID_ARGUMENT: Final = 3
RPC_DEADLINE_EXCEEDED: Final = 4
RPC_NOT_FOUND: Final = 5
RPC_PERMISSION_DENIED: Final = 7
RPC_RESOURCE_EXHAUSTED: Final = 8
RPC_UNIMPLEMENTED: Final = 12
RPC_INTERNAL: Final = 13
RPC_UNAVAILABLE: Final = 14
RPC_UNAUTHENTICATED: Final = 16
