"""The file of the local log: its name, its format, and the statements about it."""

from typing import Final

FILE_NAME: Final = "messages.sqlite"
APPLICATION_ID: Final = 0x49534C47  # "ISLG": tells our file from anyone else's database
VERSION: Final = 1
# Measured: with 4 KiB a large message is a chain of 128 pages, with 64 KiB a small commit writes 128 KiB.
PAGE_BYTES: Final = 16 * 1024
# How long to wait for a lock that somebody's sqlite3 shell holds.
LOCK_TIMEOUT_S: Final = 5.0

SCHEMA: Final = f"""
CREATE TABLE partitions (id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE, committed INTEGER NOT NULL, intent INTEGER) STRICT;
CREATE TABLE chunks (key INTEGER PRIMARY KEY, lengths BLOB NOT NULL, payload BLOB NOT NULL) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
INSERT: Final = "INSERT INTO chunks (key, lengths, payload) VALUES (?, ?, ?)"
# A chunk that the range ends in stays until its last message is committed.
DELETE: Final = "DELETE FROM chunks WHERE key >= ?1 AND key < ?2 AND key + length(lengths) / 4 <= ?2"
# From the chunk that holds the first offset, which need not be its first.
SELECT: Final = """
SELECT key, lengths, payload FROM chunks
WHERE key >= coalesce((SELECT max(key) FROM chunks WHERE key BETWEEN ?1 AND ?2), ?2) AND key < ?3
ORDER BY key
"""
