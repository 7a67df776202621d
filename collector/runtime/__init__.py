"""The process itself: shutdown, locks, memory, clocks, version."""
