"""The adapter and the answers of each route: one table for HTTP, one for gRPC.

An adapter is chosen only here, once, by the request's head.
"""

from functools import partial
from typing import Final

from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_NATIVE_JSON,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V1,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V2,
    PayloadForm,
)

import adapters.native.request
import adapters.prometheus.write_v1
import adapters.prometheus.write_v2
from adapters.codec.json_parts import JsonPartsCount
from adapters.otlp.export_request import SHAPES
from adapters.price import ElementsCount
from adapters.prometheus.versions import V1_MEDIA_TYPE, V2_MEDIA_TYPE
from adapters.record import (
    LOGS,
    METRICS,
    SOURCE_NATIVE,
    SOURCE_OTLP,
    SOURCE_PROMETHEUS_WRITE_V1,
    SOURCE_PROMETHEUS_WRITE_V2,
    TRACES,
)
from collector.ingest import endpoints
from collector.ingest.otlp_inputs import OTLP_FORMS, OTLP_JSON, OTLP_PROTOBUF
from collector.ingest.reading import Adapt, CountPieces, Input
from collector.receivers.encodings import HTTP, SNAPPY
from collector.receivers.grpc.services import Service
from collector.receivers.http.telemetry_request import Format, Route
from collector.receivers.responses import (
    NATIVE,
    NATIVE_BATCH,
    REMOTE_WRITE_V1,
    REMOTE_WRITE_V2,
    Dialect,
    OtlpJsonDialect,
    OtlpProtobufDialect,
)

# The adapters that read the payloads of dead letters.
PAYLOAD_ADAPTERS: Final[dict[PayloadForm, Adapt]] = {
    PAYLOAD_FORM_NATIVE_JSON: adapters.native.request.adapt,
    **{OTLP_FORMS[signal]: adapt for signal, adapt in OTLP_PROTOBUF.items()},
    PAYLOAD_FORM_PROMETHEUS_WRITE_V1: adapters.prometheus.write_v1.adapt,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V2: adapters.prometheus.write_v2.adapt,
}


def _count(signal: int) -> CountPieces:
    return partial(ElementsCount, SHAPES[signal])


def _otlp(endpoint: str, signal: int) -> Route:
    json = OtlpJsonDialect(signal)
    adapt, adapt_json, form = OTLP_PROTOBUF[signal], OTLP_JSON[signal], OTLP_FORMS[signal]
    formats = {
        "application/x-protobuf": Format(
            Input(adapt, _count(signal), SOURCE_OTLP, endpoint, form), OtlpProtobufDialect(signal), HTTP
        ),
        "application/json": Format(Input(adapt_json, JsonPartsCount, SOURCE_OTLP, endpoint, form), json, HTTP),
    }
    return Route(endpoint, formats, otherwise=json)


def _native(endpoint: str, adapt: Adapt, dialect: Dialect) -> Route:
    format_ = Format(Input(adapt, JsonPartsCount, SOURCE_NATIVE, endpoint, PAYLOAD_FORM_NATIVE_JSON), dialect, HTTP)
    return Route(endpoint, {"application/json": format_}, otherwise=dialect)


def http_routes(batch_items_max: int) -> dict[str, Route]:
    """Return all routes that take telemetry, by path."""
    remote_write = endpoints.REMOTE_WRITE
    write_v1 = Format(
        Input(
            adapters.prometheus.write_v1.adapt,
            partial(ElementsCount, adapters.prometheus.write_v1.SHAPE),
            SOURCE_PROMETHEUS_WRITE_V1,
            remote_write,
            PAYLOAD_FORM_PROMETHEUS_WRITE_V1,
        ),
        REMOTE_WRITE_V1,
        SNAPPY,
    )
    write_v2 = Format(
        Input(
            adapters.prometheus.write_v2.adapt,
            partial(ElementsCount, adapters.prometheus.write_v2.SHAPE),
            SOURCE_PROMETHEUS_WRITE_V2,
            remote_write,
            PAYLOAD_FORM_PROMETHEUS_WRITE_V2,
        ),
        REMOTE_WRITE_V2,
        SNAPPY,
    )
    routes = (
        _otlp(endpoints.OTLP_METRICS, METRICS),
        _otlp(endpoints.OTLP_LOGS, LOGS),
        _otlp(endpoints.OTLP_TRACES, TRACES),
        _native(endpoints.NATIVE, adapters.native.request.adapt, NATIVE),
        _native(
            endpoints.NATIVE_BATCH,
            partial(adapters.native.request.adapt_batch, batch_items_max=batch_items_max),
            NATIVE_BATCH,
        ),
        Route(
            remote_write,
            {
                V1_MEDIA_TYPE: write_v1,
                # The media types of senders that do not know the specification; some send none.
                "": write_v1,
                "text/plain": write_v1,
                "application/octet-stream": write_v1,
                "application/vnd.google.protobuf": write_v1,
                "application/x-protobuf;proto=prometheus.WriteRequest": write_v1,
                V2_MEDIA_TYPE: write_v2,
            },
            otherwise=REMOTE_WRITE_V1,
            parameter="proto",
        ),
    )
    return {route.endpoint: route for route in routes}


def _service(name: str, signal: int) -> Service:
    adapt, form = OTLP_PROTOBUF[signal], OTLP_FORMS[signal]
    return Service(name, signal, Input(adapt, _count(signal), SOURCE_OTLP, endpoints.export(name), form))


GRPC_SERVICES: Final = (
    _service(endpoints.METRICS_SERVICE, METRICS),
    _service(endpoints.LOGS_SERVICE, LOGS),
    _service(endpoints.TRACES_SERVICE, TRACES),
)
