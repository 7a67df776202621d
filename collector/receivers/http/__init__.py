"""Telemetry and the API over HTTP/1.1 and HTTP/2."""
