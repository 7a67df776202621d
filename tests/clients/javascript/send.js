// Sends AMOUNT (the argument) spans, log records and counter points, numbered from 0, and one histogram of all the numbers.
//
// The law: nothing is set here; where to and how is OpenTelemetry's own environment variables, as a user would set them.
import { context, metrics, trace } from '@opentelemetry/api';
import { logs } from '@opentelemetry/api-logs';
import { NodeSDK } from '@opentelemetry/sdk-node';

const amount = Number(process.argv[2]);
const sdk = new NodeSDK();
sdk.start();

const tracer = trace.getTracer('numbered');
const logger = logs.getLogger('numbered');
const meter = metrics.getMeter('numbered');
const counter = meter.createCounter('numbered.counter');
const histogram = meter.createHistogram('numbered.histogram');

for (let number = 0; number < amount; number++) {
  const span = tracer.startSpan('numbered', { attributes: { number } });
  context.with(trace.setSpan(context.active(), span), () => {
    logger.emit({ body: String(number), attributes: { number } });
    counter.add(number, { number });
    histogram.record(number);
  });
  span.end();
}
await sdk.shutdown();
