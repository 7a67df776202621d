"""The hot path: from a decompressed body to durable messages."""
