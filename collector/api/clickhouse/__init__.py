"""ClickHouse's HTTP protocol, read-only, over the embedded store: what Grafana, drivers and `curl` ask a ClickHouse server."""
