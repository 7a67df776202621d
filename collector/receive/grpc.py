"""OTLP over gRPC: the three services, health checking and reflection.

The law: requests are bytes all the way to the adapter, and errors are trailers-only: Java's sender drops a batch if initial
metadata came before its error. Bodies in other encodings than gzip and deflate never get here: gRPC core answers INTERNAL.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Final, NamedTuple

# gRPC core would write a line past our log for every failed handshake and every odd header: strangers could fill the disk.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf import descriptor_pool
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused
from collector.config import Grpc
from collector.metrics import Metrics
from collector.pipeline import Input, Outcome, Pipeline
from collector.produce import InFlight, InFlightShare, Overloaded
from collector.receive.responses import Explain, OtlpProtobufDialect, ShuttingDown, log_if_defect, rpc_status
from collector.receive.tls import Certificates, Pem
from collector.tenancy.access import Access, key_of
from collector.tenancy.callers import Caller

# What a cancelled request may still take to say so.
_CANCEL_S: Final = 1.0
_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}

_Context = aio.ServicerContext[bytes, bytes]


class Service(NamedTuple):
    """One of OTLP's services: its full name, what it takes, and who reads it."""

    name: str
    signal: int
    input: Input


class GrpcServer:
    """Use: `start`, then `port`, then `stop`."""

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        metrics: Metrics,
        settings: Grpc,
        *,
        host: str,
        services: Sequence[Service],
        access: Access,
        explain: Explain,
        certificates: Certificates | None = None,
        reuse_port: bool = False,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`certificates`: TLS alone. `reuse_port`: other processes may listen there too, and share the connections."""
        self._pipeline: Final = pipeline
        self._in_flight: Final = in_flight
        self._metrics: Final = metrics
        self._settings: Final = settings
        self._host: Final = host
        self._services: Final = services
        self._access: Final = access
        self._explain: Final = explain
        self._certificates: Final = certificates
        self._reuse_port: Final = reuse_port
        self._clock: Final = clock
        self._ingests: Final[set[asyncio.Task[Outcome]]] = set()
        self._health: Final = health.aio.HealthServicer()
        self._server: aio.Server | None = None
        self.port = 0  # the one that is listened on

    async def start(self) -> None:
        """Listen and accept. Raises OSError where the port can't be had."""
        server = aio.server(options=_options(self._settings, self._reuse_port))
        server.add_generic_rpc_handlers(tuple(self._handler(service) for service in self._services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.name for service in self._services]
        for name in names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server, descriptor_pool.Default()
        )
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            address = f"{host}:{self._settings.port}"
            if self._certificates is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, _credentials(self._certificates))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{self._settings.port} for gRPC: {error}") from error
        self._server = server
        await server.start()

    async def stop(self, grace_s: float) -> None:
        """Say so to health checks, take no more requests, let those at hand finish for `grace_s` seconds, then cancel them."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        stopped = asyncio.create_task(self._server.stop(grace_s + _CANCEL_S))
        await asyncio.wait({stopped}, timeout=grace_s)
        for ingest in self._ingests:
            ingest.cancel()
        await stopped

    def _handler(self, service: Service) -> grpc.GenericRpcHandler:
        endpoint = self._metrics.grpc_method(f"{service.name}/Export")
        dialect = OtlpProtobufDialect(service.signal)

        async def export(body: bytes, context: _Context) -> bytes:
            began = self._clock()
            code = grpc.StatusCode.CANCELLED
            try:
                outcome = await self._ingest(service, body, self._caller(context))
                code = grpc.StatusCode.OK
                # HTTP's X-InfraSage-Batch-Id: the receipt.
                context.set_trailing_metadata((("x-infrasage-batch-id", str(outcome.batch_id)),))
                return dialect.body(outcome)
            except Exception as error:  # noqa: BLE001  # whatever it is, its sender is answered, and a defect is logged
                refusal = self._explain(error)
                self._metrics.refused(refusal.reason)
                code = _CODES[refusal.codes.grpc]
                log_if_defect(error, refusal, service.name)
                # Trailers-only, since nothing has sent initial metadata.
                await context.abort(code, refusal.message, (("grpc-status-details-bin", rpc_status(refusal)),))
            finally:
                endpoint.answered(code.name, self._clock() - began, len(body))

        return grpc.method_handlers_generic_handler(service.name, {"Export": grpc.unary_unary_rpc_method_handler(export)})

    def _caller(self, context: _Context) -> Caller:
        """Raises RequestRefused."""
        api_key: bytes | None = None
        authorization: bytes | None = None
        for name, value in context.invocation_metadata() or ():
            if name == "x-api-key":
                api_key = _bytes(value) if api_key is None else api_key + b", " + _bytes(value)
            elif name == "authorization":
                authorization = _bytes(value) if authorization is None else authorization + b", " + _bytes(value)
        return self._access.sender(key_of(api_key, authorization))

    async def _ingest(self, service: Service, body: bytes, caller: Caller) -> Outcome:
        """In a task of its own: what a client that hangs up has sent is in memory until it is durable, and counts as such."""
        settings = self._settings
        if len(body) > settings.message_bytes_max:
            raise RequestRefused(
                PAYLOAD_TOO_LARGE, f"the request is {len(body)} bytes; at most {settings.message_bytes_max} are taken"
            )
        if len(self._ingests) >= settings.concurrent_requests_max:
            # grpcio's own limit answers RESOURCE_EXHAUSTED, at which senders drop their data.
            raise Overloaded(f"{len(self._ingests)} requests are in flight, which are taken at most")
        self._pipeline.check(caller, len(body))
        share = self._in_flight.share(caller.tenant)
        share.reserve(len(body))
        ingest = asyncio.create_task(self._pipeline.ingest(service.input, body, caller))
        self._ingests.add(ingest)
        ingest.add_done_callback(partial(self._release, share, len(body)))
        try:
            return await asyncio.shield(ingest)
        except asyncio.CancelledError:
            if ingest.cancelled():
                raise ShuttingDown("the collector stopped before the request was done") from None
            raise

    def _release(self, share: InFlightShare, size_bytes: int, ingest: asyncio.Task[Outcome]) -> None:
        share.release(size_bytes)
        self._ingests.discard(ingest)
        if not ingest.cancelled():
            ingest.exception()  # its sender may have hung up: nobody else looks at it then


def _bytes(value: str | bytes) -> bytes:
    """Metadata's values are ASCII, or, under names that end in -bin, any bytes."""
    return value.encode() if isinstance(value, str) else value


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Those in force at each handshake: gRPC asks then whether there are new ones."""
    told = certificates.pem

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        pem = certificates.pem
        if pem is told:
            return None
        told = pem
        return _configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(told),
        fetch,  # type: ignore[arg-type]  # None: nothing new, as gRPC's documentation has it
        require_client_authentication=told.client_ca is not None,
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], root_certificates=pem.client_ca)


def _options(settings: Grpc, reuse_port: bool) -> list[tuple[str, int]]:
    """gRPC core's channel arguments."""
    return [
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_concurrent_streams", settings.concurrent_streams_max),
        ("grpc.max_allowed_incoming_connections", settings.connections_max),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout_s * 1000)),
        ("grpc.max_metadata_size", settings.header_bytes_max),
        ("grpc.absolute_max_metadata_size", settings.header_bytes_max),
        ("grpc.keepalive_time_ms", int(settings.keep_alive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keep_alive_timeout_s * 1000)),
        # Python's client pings as soon as it has connected, with nothing under way.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.ping_interval_min_s * 1000)),
        # Only where it is meant: two collectors on one port would share its requests, and hide a mistake.
        ("grpc.so_reuseport", int(reuse_port)),
    ]
