"""Tenants held to their plans: by one process from memory, by several through Redis."""
