"""The collector: receive, adapt, validate, limit, produce; then write, exactly once."""
