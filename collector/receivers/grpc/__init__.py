"""OTLP over gRPC: the three services, health checking and reflection, on an HTTP/2 of our own."""
