"""What is told of the past: read from the store, for pages and commands."""
