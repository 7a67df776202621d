// Sends AMOUNT (the argument) spans, log records and counter points, numbered from 0, and three histograms of all the numbers: one
// with the default bounds, one without bounds, and an exponential one.
//
// OpenTelemetry's own environment variables say where to send and how, as a user would set them.
import { context, metrics, trace } from '@opentelemetry/api';
import { logs } from '@opentelemetry/api-logs';
import { AggregationType } from '@opentelemetry/sdk-metrics';
import { NodeSDK } from '@opentelemetry/sdk-node';

const amount = Number(process.argv[2]);
const sdk = new NodeSDK({
  views: [{ instrumentName: 'numbered.exponential', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
});
sdk.start();

const tracer = trace.getTracer('numbered');
const logger = logs.getLogger('numbered');
const meter = metrics.getMeter('numbered');
const counter = meter.createCounter('numbered.counter');
const histogram = meter.createHistogram('numbered.histogram');
const boundless = meter.createHistogram('numbered.boundless', { advice: { explicitBucketBoundaries: [] } });
const exponential = meter.createHistogram('numbered.exponential');

for (let number = 0; number < amount; number++) {
  const span = tracer.startSpan('numbered', { attributes: { number } });
  context.with(trace.setSpan(context.active(), span), () => {
    logger.emit({ body: String(number), attributes: { number } });
    counter.add(number, { number });
    histogram.record(number);
    boundless.record(number);
    exponential.record(number);
  });
  span.end();
}
await sdk.shutdown();
