"""ClickHouse's HTTP protocol, read-only, for the embedded store, as Grafana, drivers and `curl` use it with a server."""
