"""The file of the local log: its name, its format, and the statements about it.

Invariants:
1. A file has one identity. It is made with the file, or when a version that knows identities first opens the file
   (test_a_log_that_was_made_anew_has_another_identity, test_a_file_of_an_older_version_gets_an_identity).
2. An intent keeps its log identity and its depth until its commit. An intent of a version that knew neither has none
   (test_an_intent_of_an_older_version_has_no_identity).
3. A message, the position of a partition, and a start are used only if they fit their checksums
   (test_whatever_is_damaged_is_read_or_reported, test_a_start_that_is_damaged_is_not_used).
"""

from typing import Final

FILE_NAME: Final = "messages.sqlite"
APPLICATION_ID: Final = 0x49534C47  # "ISLG": distinguishes our file from other databases
VERSION: Final = 2
# A larger number is damage, not a newer program's file.
PLAUSIBLE_VERSION_MAX: Final = 16
# Without checksums; brought up to date when it is opened.
FORMER_VERSION: Final = 1
# Measured: with 4 KiB a large message is a chain of 128 pages, with 64 KiB a small commit writes 128 KiB.
PAGE_BYTES: Final = 16 * 1024
# How long to wait for a lock, which another process, such as an sqlite3 shell, may hold.
LOCK_TIMEOUT_S: Final = 5.0

SCHEMA: Final = f"""
CREATE TABLE partitions (id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE, committed INTEGER NOT NULL, intent INTEGER) STRICT;
CREATE TABLE chunks (key INTEGER PRIMARY KEY, lengths BLOB NOT NULL, payload BLOB NOT NULL) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMER_VERSION};
"""
# Added to a file that has no identity yet.
IDENTITY: Final = """
CREATE TABLE identity (id TEXT NOT NULL) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));
ALTER TABLE partitions ADD COLUMN intent_log TEXT;
ALTER TABLE partitions ADD COLUMN intent_depth INTEGER;
"""
# The first row is the file's own identity, the others are those of the files that it was rebuilt from.
IDENTITIES: Final = "SELECT id FROM identity ORDER BY rowid"
ADD_IDENTITY: Final = "INSERT INTO identity VALUES (?)"
# Whether the file is in use. If it was not closed, it has a write-ahead log, unless that was removed.
STATE: Final = "CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), is_open INTEGER NOT NULL) STRICT"
SET_STATE: Final = "INSERT INTO state VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET is_open = ?1"
WAS_OPEN: Final = "SELECT count(*) FROM state WHERE is_open"
# For a file that is another branch, which gets an identity of its own.
CLEAR_IDENTITIES: Final = "DELETE FROM identity"
# The last starts (collector/broker/local_log/lineage.py). Starts that a former version noted have no checksum.
EPOCHS: Final = """
CREATE TABLE IF NOT EXISTS epochs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, heads TEXT NOT NULL, is_branch INTEGER NOT NULL, checksum INTEGER) STRICT
"""
HAS_EPOCH_CHECKSUMS: Final = "SELECT count(*) FROM pragma_table_info('epochs') WHERE name = 'checksum'"
ADD_EPOCH_CHECKSUMS: Final = "ALTER TABLE epochs ADD COLUMN checksum INTEGER"
READ_EPOCHS: Final = "SELECT id, heads, is_branch, checksum FROM epochs ORDER BY number"
ADD_EPOCH: Final = "INSERT INTO epochs (id, heads, is_branch, checksum) VALUES (?, ?, ?, ?)"
DROP_EPOCHS: Final = "DELETE FROM epochs WHERE number <= (SELECT max(number) FROM epochs) - ?"
HAS_TABLES: Final = "SELECT count(*) FROM sqlite_schema"
HAS_IDENTITY: Final = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'identity'"
# Version 2 added these. Rows of version 1 have no checksums. `floor` is the end of a partition whose last messages are lost.
CHECKSUMS: Final = f"""
ALTER TABLE chunks ADD COLUMN checksums BLOB;
ALTER TABLE partitions ADD COLUMN floor INTEGER;
ALTER TABLE partitions ADD COLUMN checksum INTEGER;
PRAGMA user_version = {VERSION};
"""
HEADS: Final = "SELECT id, topic, committed, intent, intent_log, intent_depth, floor, checksum FROM partitions"
ADD_HEAD: Final = "INSERT INTO partitions (id, topic, committed, checksum) VALUES (?, ?, 0, ?)"
INTEND: Final = "UPDATE partitions SET intent = ?, intent_log = ?, intent_depth = ?, checksum = ? WHERE id = ?"
COMMIT: Final = """
UPDATE partitions SET committed = ?, intent = NULL, intent_log = NULL, intent_depth = NULL, checksum = ? WHERE id = ?
"""
INSERT: Final = "INSERT INTO chunks (key, lengths, payload, checksums) VALUES (?, ?, ?, ?)"
RESTORE: Final = "INSERT OR IGNORE INTO chunks (key, lengths, payload, checksums) VALUES (?, ?, ?, ?)"
RESTORE_HEAD: Final = """
INSERT INTO partitions (id, topic, committed, intent, intent_log, intent_depth, floor, checksum)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (topic) DO UPDATE SET committed = ?3, intent = ?4, intent_log = ?5, intent_depth = ?6, floor = ?7, checksum = ?8
"""
PLACES: Final = "SELECT key, length(lengths) / 4 FROM chunks WHERE key BETWEEN ? AND ? ORDER BY key"
BELOW: Final = """
SELECT count(*) FROM (SELECT 1 FROM chunks WHERE key >= ?1 AND key < ?2 AND key + length(lengths) / 4 <= ?2 LIMIT 1)
"""
# The chunk that holds an offset, if there is one: the last that begins at or before it.
HOLDS: Final = "SELECT key, lengths, payload, checksums FROM chunks WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1"
# Deletes the messages from an offset on.
WITHDRAW: Final = "DELETE FROM chunks WHERE key >= ? AND key < ?"
# A chunk that the range ends in stays until its last message is committed.
DELETE: Final = "DELETE FROM chunks WHERE key >= ?1 AND key < ?2 AND key + length(lengths) / 4 <= ?2"
# From the chunk that holds the first offset, which need not be the chunk's first.
SELECT: Final = """
SELECT key, lengths, payload, checksums FROM chunks
WHERE key >= coalesce((SELECT max(key) FROM chunks WHERE key BETWEEN ?1 AND ?2), ?2) AND key < ?3
ORDER BY key
"""
