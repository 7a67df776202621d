"""The store of records: its contract, and its implementation in ClickHouse, as a server or embedded."""
