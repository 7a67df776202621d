import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.logs.Logger;
import io.opentelemetry.api.metrics.LongCounter;
import io.opentelemetry.api.metrics.LongHistogram;
import io.opentelemetry.api.metrics.Meter;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Scope;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;

/**
 * Sends AMOUNT (the argument) spans, log records and counter points, numbered from 0, and one histogram of all the numbers.
 *
 * <p>The law: nothing is set here; where to and how is OpenTelemetry's own environment variables, as a user would set them.
 */
public final class Send {
  private static final AttributeKey<Long> NUMBER = AttributeKey.longKey("number");

  public static void main(String[] arguments) {
    try (OpenTelemetrySdk sdk = AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk()) {
      send(sdk, Long.parseLong(arguments[0]));
    }
  }

  private static void send(OpenTelemetry sdk, long amount) {
    Tracer tracer = sdk.getTracer("numbered");
    Logger logger = sdk.getLogsBridge().get("numbered");
    Meter meter = sdk.getMeter("numbered");
    LongCounter counter = meter.counterBuilder("numbered.counter").build();
    LongHistogram histogram = meter.histogramBuilder("numbered.histogram").ofLongs().build();
    for (long number = 0; number < amount; number++) {
      Span span = tracer.spanBuilder("numbered").setAttribute(NUMBER, number).startSpan();
      try (Scope inSpan = span.makeCurrent()) {
        logger.logRecordBuilder().setBody(Long.toString(number)).setAttribute(NUMBER, number).emit();
        counter.add(number, Attributes.of(NUMBER, number));
        histogram.record(number);
      }
      span.end();
    }
  }
}
