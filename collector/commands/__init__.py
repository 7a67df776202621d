"""Commands beside those that run the collector: one module a group."""
