"""The contents of the collector's own messages."""
