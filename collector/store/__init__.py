"""Where records end up: a contract, and ClickHouse, as a server or embedded."""
