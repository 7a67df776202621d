"""From the wire to one call of `ingest`: HTTP and gRPC."""
