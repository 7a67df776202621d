"""From the broker to the store, exactly once."""
