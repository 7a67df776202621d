"""Kafka's requests and answers as bytes: no I/O."""
