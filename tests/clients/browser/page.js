// A page that sends with OpenTelemetry's SDK for the web, with fetch and with navigator.sendBeacon. What became of it goes back to
// the page's own server. Its address has all that it needs to know: ?collector=URL&service=NAME&key=KEY&amount=N.
import { SeverityNumber } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as OTLPProtoTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BatchSpanProcessor, WebTracerProvider } from "@opentelemetry/sdk-trace-web";

const wanted = new URLSearchParams(location.search);
const collector = wanted.get("collector");
const service = wanted.get("service");
const key = wanted.get("key");
const amount = Number(wanted.get("amount"));
const headers = { "x-api-key": key };
const resource = resourceFromAttributes({ "service.name": service });

async function traces(Exporter, name) {
  const exporter = new Exporter({ url: `${collector}/v1/traces`, headers });
  const provider = new WebTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(exporter)] });
  const tracer = provider.getTracer("page");
  for (let number = 0; number < amount; number++) tracer.startSpan(name, { attributes: { number } }).end();
  await provider.forceFlush();
  await provider.shutdown();
}

async function logs() {
  const exporter = new OTLPLogExporter({ url: `${collector}/v1/logs`, headers });
  const provider = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter })] });
  const logger = provider.getLogger("page");
  for (let number = 0; number < amount; number++) {
    logger.emit({ body: "sdk", severityNumber: SeverityNumber.INFO, attributes: { number } });
  }
  await provider.forceFlush();
  await provider.shutdown();
}

async function metrics() {
  const exporter = new OTLPMetricExporter({ url: `${collector}/v1/metrics`, headers });
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ resource, readers: [reader] });
  const counter = provider.getMeter("page").createCounter("numbered.counter");
  for (let number = 0; number < amount; number++) counter.add(number, { number });
  await provider.shutdown(); // this exports; forceFlush before it would export the same points twice
}

function record(body) {
  const attributes = [{ key: "service.name", value: { stringValue: service } }];
  const logRecords = [{ timeUnixNano: `${Date.now()}000000`, body: { stringValue: body } }];
  return JSON.stringify({ resourceLogs: [{ resource: { attributes }, scopeLogs: [{ logRecords }] }] });
}

function beacon() {
  const url = `${collector}/v1/logs?api_key=${key}`;
  return navigator.sendBeacon(url, new Blob([record("beacon")], { type: "application/json" }));
}

// What a page can see of one request: the answer, or that it may not read it.
async function seen(path, headers, body) {
  try {
    const response = await fetch(`${collector}${path}`, { method: "POST", headers, body, keepalive: true });
    return { status: response.status, batch: response.headers.get("x-infrasage-batch-id") !== null, text: await response.text() };
  } catch (error) {
    return { error: String(error) };
  }
}

async function main() {
  const json = { "content-type": "application/json" };
  const told = { origin: location.origin };
  told.fetched = await seen("/v1/logs", { ...json, ...headers, traceparent: `00-${"1".repeat(32)}-${"2".repeat(16)}-01` }, record("fetch"));
  told.wrongKey = await seen("/v1/logs", { ...json, "x-api-key": "isage_wrong" }, record("wrong key"));
  told.wrongPath = await seen("/v1/nowhere", { ...json, ...headers }, record("wrong path"));
  told.notJson = await seen("/v1/logs", { ...json, ...headers }, "{");
  if (!("error" in told.fetched)) {
    await traces(OTLPTraceExporter, "json");
    await traces(OTLPProtoTraceExporter, "proto");
    await logs();
    await metrics();
    told.beacon = beacon();
  }
  return told;
}

main().then(
  (told) => fetch("/told", { method: "POST", body: JSON.stringify(told) }),
  (error) => fetch("/told", { method: "POST", body: JSON.stringify({ failed: String(error.stack) }) }),
);
