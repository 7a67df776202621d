"""Adapters: bytes in, records out. No I/O, no clock, no asyncio, no logging, no configuration.

Every adapter has the same shape: `adapt(body, header, rules, message_bytes_max) -> Adapted`.
"""
