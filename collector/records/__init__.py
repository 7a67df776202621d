"""What the collector's own messages hold."""
