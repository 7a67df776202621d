"""Receivers: HTTP and gRPC in, the pipeline behind."""
