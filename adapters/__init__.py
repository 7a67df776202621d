"""Adapters convert bytes to records. They have no I/O, clock, asyncio, logging or configuration.

Every adapter has the same shape: `adapt(body, header, rules, message_bytes_max) -> Adapted`.
"""
