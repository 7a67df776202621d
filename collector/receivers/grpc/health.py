"""gRPC's health checking protocol: whether the collector takes calls, for all of it and for each service.

Source: grpc/doc/health-checking.md.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from collector.receivers.grpc.stream_call import CallFailed, Handler, StreamCall
from collector.receivers.rpc_codes import RPC_INVALID_ARGUMENT, RPC_NOT_FOUND

SERVICE: Final = "grpc.health.v1.Health"
CHECK_PATH: Final = f"/{SERVICE}/Check".encode()


class GrpcHealth:
    """The health of all services, which is the same, since one process serves them."""

    def __init__(self, services: Sequence[str]) -> None:
        """`services` are full names."""
        self._services: Final = frozenset(["", *services])
        self._is_serving = True
        self._changed: Final = asyncio.Event()

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by path."""
        return {CHECK_PATH.decode(): self._check, f"/{SERVICE}/Watch": self._watch}

    def end(self) -> None:
        """Report every service as not serving, now, to every client that watches."""
        self._is_serving = False
        self._changed.set()

    async def _check(self, talk: StreamCall) -> None:
        if await _asked(talk) not in self._services:
            raise CallFailed(RPC_NOT_FOUND, "there is no such service here")
        await talk.send(self._status())

    async def _watch(self, talk: StreamCall) -> None:
        if await _asked(talk) not in self._services:
            unknown: bytes = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()
            await talk.send(unknown)
            await asyncio.Event().wait()  # no service is ever added; the client or the shutdown ends the call
        await talk.send(self._status())
        if self._is_serving:
            await self._changed.wait()
            await talk.send(self._status())
        await asyncio.Event().wait()

    def _status(self) -> bytes:
        status = HealthCheckResponse.SERVING if self._is_serving else HealthCheckResponse.NOT_SERVING
        body: bytes = HealthCheckResponse(status=status).SerializeToString()
        return body


async def _asked(talk: StreamCall) -> str:
    """Return the name of the service in the request. Raises CallFailed."""
    message = await talk.receive_only()
    try:
        request = HealthCheckRequest.FromString(message)
    except DecodeError as error:
        raise CallFailed(RPC_INVALID_ARGUMENT, "cannot decode the HealthCheckRequest") from error
    return str(request.service)
