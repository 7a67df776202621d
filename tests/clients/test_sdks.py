"""OpenTelemetry's SDKs for JavaScript, Java and Go, with all their exporters. Python's is in tests/system/test_serve.py."""

import pytest
from support.processes.clients import AMOUNT, LANGUAGES, expected, new_key, send, stored
from support.processes.program import Program

pytestmark = pytest.mark.clients

WAYS = [(name, protocol) for name, language in LANGUAGES.items() for protocol in language.protocols]
# What Java sends with beside OkHttp, its default; all of them are on the classpath, so the default is named too.
_OKHTTP = "io.opentelemetry.exporter.sender.okhttp.internal.OkHttp"
_HTTP = "-Dio.opentelemetry.sdk.common.export.HttpSenderProvider="
_GRPC = "-Dio.opentelemetry.sdk.common.export.GrpcSenderProvider="
JAVA_SENDERS = {
    "okhttp": f"{_HTTP}{_OKHTTP}HttpSenderProvider {_GRPC}{_OKHTTP}GrpcSenderProvider",
    "jdk": f"{_HTTP}io.opentelemetry.exporter.sender.jdk.internal.JdkHttpSenderProvider",
    "netty": f"{_GRPC}io.opentelemetry.exporter.sender.grpc.managedchannel.internal.UpstreamGrpcSenderProvider",
}


def endpoint(program: Program, protocol: str) -> str:
    return f"http://{program.grpc}" if protocol == "grpc" else program.otlp_http


def options(language: str, sender: str = "okhttp") -> dict[str, str]:
    return {"JAVA_TOOL_OPTIONS": JAVA_SENDERS[sender]} if language == "java" else {}


@pytest.mark.parametrize(("language", "protocol"), WAYS)
def test_with_the_address_alone(program: Program, language: str, protocol: str) -> None:
    """Spans, logs and metrics, each number once, in more than one request."""
    service = f"{language}-{protocol}"
    send(language, protocol, endpoint(program, protocol), service, **options(language))
    assert expected(protocol) == stored(program, service)


@pytest.mark.parametrize(("language", "protocol"), WAYS)
def test_with_a_key_and_gzip(program: Program, language: str, protocol: str) -> None:
    """The key as a header, as the SDK's variable has it: all of it is the key's tenant's, and compressed."""
    tenant = f"{language}-{protocol.replace('/', '-')}"
    service = f"{tenant}-with-a-key"
    variables = {
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={new_key(program, tenant)}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    send(language, protocol, endpoint(program, protocol), service, **variables, **options(language))
    assert expected(protocol) == stored(program, service, tenant)


@pytest.mark.parametrize("protocol", LANGUAGES["javascript"].protocols)
def test_histograms_with_empty_lists(program: Program, protocol: str) -> None:
    """A histogram without bounds, and an exponential one without negative buckets: over http/json both have empty lists."""
    service = f"javascript-{protocol}-lists"
    send("javascript", protocol, endpoint(program, protocol), service)
    assert expected(protocol) == stored(program, service)
    whole = {"count": AMOUNT, "sum": AMOUNT * (AMOUNT - 1) // 2}
    columns = "MetricName AS name, toUInt32(Count) AS count, toUInt32(Sum) AS sum"
    tables = ("otel_metrics_histogram", "otel_metrics_exponential_histogram")
    rows = " UNION ALL ".join(f"SELECT {columns} FROM {table} WHERE ServiceName = '{service}'" for table in tables)
    assert [{"name": "numbered.boundless"} | whole, {"name": "numbered.exponential"} | whole] == program.query(
        f"SELECT * FROM ({rows}) WHERE name != 'numbered.histogram' ORDER BY name"
    )


@pytest.mark.parametrize(("sender", "protocol"), [("jdk", "http/protobuf"), ("netty", "grpc")])
def test_the_other_senders_of_java(program: Program, sender: str, protocol: str) -> None:
    """The JDK's own HTTP client, which asks for an upgrade to HTTP/2 with each request, and gRPC's own channel."""
    service = f"java-{sender}"
    send("java", protocol, endpoint(program, protocol), service, **options("java", sender))
    assert expected(protocol) == stored(program, service)
