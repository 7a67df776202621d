"""Brokers, which keep records until they are stored: a contract, and its implementations."""
