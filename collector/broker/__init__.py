"""Where records wait until they are stored: a contract, and its implementations."""
