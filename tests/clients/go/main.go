// Sends AMOUNT (the argument) spans, log records and counter points, numbered from 0, and one histogram of all the numbers.
//
// The law: where to and how is OpenTelemetry's own environment variables, as a user would set them. Go's SDK reads all of them
// but the protocol, which is chosen here.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func exporters(ctx context.Context, protocol string) (*otlptrace.Exporter, sdklog.Exporter, sdkmetric.Exporter, error) {
	switch protocol {
	case "grpc":
		spans, spansErr := otlptracegrpc.New(ctx)
		logs, logsErr := otlploggrpc.New(ctx)
		metrics, metricsErr := otlpmetricgrpc.New(ctx)
		return spans, logs, metrics, errors.Join(spansErr, logsErr, metricsErr)
	case "http/protobuf":
		spans, spansErr := otlptracehttp.New(ctx)
		logs, logsErr := otlploghttp.New(ctx)
		metrics, metricsErr := otlpmetrichttp.New(ctx)
		return spans, logs, metrics, errors.Join(spansErr, logsErr, metricsErr)
	}
	return nil, nil, nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: grpc or http/protobuf is needed", protocol)
}

func send(ctx context.Context, amount int) (err error) {
	spanExporter, logExporter, metricExporter, err := exporters(ctx, os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"))
	if err != nil {
		return err
	}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithBatcher(spanExporter))
	loggers := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(logExporter)))
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metricExporter)))
	defer func() { err = errors.Join(err, tracers.Shutdown(ctx), loggers.Shutdown(ctx), meters.Shutdown(ctx)) }()

	tracer, logger, meter := tracers.Tracer("numbered"), loggers.Logger("numbered"), meters.Meter("numbered")
	counter, counterErr := meter.Int64Counter("numbered.counter")
	histogram, histogramErr := meter.Int64Histogram("numbered.histogram")
	if err := errors.Join(counterErr, histogramErr); err != nil {
		return err
	}
	for number := range amount {
		numbered := attribute.Int("number", number)
		inSpan, span := tracer.Start(ctx, "numbered")
		span.SetAttributes(numbered)
		var record log.Record
		record.SetBody(attribute.StringValue(strconv.Itoa(number)))
		record.AddAttributes(numbered)
		logger.Emit(inSpan, record)
		counter.Add(inSpan, int64(number), metric.WithAttributes(numbered))
		histogram.Record(inSpan, int64(number))
		span.End()
	}
	return nil
}

func main() {
	// The SDK's default handler goes on after what it prints: one that is lost has to be an exit status.
	status := 0
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}))
	amount, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = send(context.Background(), amount)
	}
	if err != nil {
		otel.Handle(err)
	}
	os.Exit(status)
}
