"""The senders: their keys, the scopes of keys, and the plans of tenants."""
