"""Rejected and refused items: list, show, replay, discard."""
