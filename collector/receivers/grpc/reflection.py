"""gRPC's server reflection, with which tools such as grpcurl and ghz list and call the services without their files.

Source: grpc/doc/server-reflection.md. The answers are grpcio-reflection's, which is loaded at the first question: it needs more
memory than the rest of the server. Its protocol is v1alpha, and v1 has the same messages under another name.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from collector.receivers.grpc.stream_call import CallFailed, Handler, StreamCall
from collector.receivers.rpc_codes import RPC_INVALID_ARGUMENT

SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"
_SERVICE_V1: Final = "grpc.reflection.v1.ServerReflection"


class _Pool:
    """A pool of descriptors that finds methods by their names too. Python's own does not, C++'s does."""

    def __init__(self, pool: Any) -> None:
        self._pool: Final = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802  # protobuf's name
        """Return the file that defines a symbol. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            name, _, method = symbol.rpartition(".")
            service = self._pool.FindServiceByName(name)
            return service.methods_by_name[method].containing_service.file


class Reflection:
    """Answers reflection requests about the services with these names."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services: Final = services
        self._loaded: Any = None

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by path."""
        return {f"/{service}/ServerReflectionInfo": self._info for service in (SERVICE, _SERVICE_V1)}

    async def _info(self, talk: StreamCall) -> None:
        if self._loaded is None:
            self._loaded = await asyncio.to_thread(self._load)
        request_type, servicer = self._loaded
        while (message := await talk.receive()) is not None:
            try:
                request = request_type.FromString(message)
            except DecodeError as error:
                raise CallFailed(RPC_INVALID_ARGUMENT, "cannot decode the ServerReflectionRequest") from error
            for answer in servicer.ServerReflectionInfo(iter([request]), None):
                await talk.send(answer.SerializeToString())

    def _load(self) -> tuple[Any, Any]:
        # gRPC core, whose log would bypass ours, is not used here.
        # The services' files are in the pool once they are loaded.
        import opentelemetry.proto.collector.logs.v1.logs_service_pb2  # noqa: PLC0415
        import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2  # noqa: PLC0415
        import opentelemetry.proto.collector.trace.v1.trace_service_pb2  # noqa: F401, PLC0415
        from google.protobuf import descriptor_pool  # noqa: PLC0415
        from grpc_reflection.v1alpha import reflection, reflection_pb2  # noqa: PLC0415

        servicer = reflection.ReflectionServicer(self._services, _Pool(descriptor_pool.Default()))
        return reflection_pb2.ServerReflectionRequest, servicer
