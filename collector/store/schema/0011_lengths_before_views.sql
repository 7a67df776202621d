-- An identifier that is too long is refused where the landing table computes these columns, before a view has stored a row. The
-- views convert the same fields: an insert that one of them refused had rows of the views before it, and its halves stored these
-- once more.

ALTER TABLE landing_metrics ADD COLUMN IF NOT EXISTS ProcessIdBytes FixedString(16) MATERIALIZED toFixedString(receipt_process_id, 16),
    ADD COLUMN IF NOT EXISTS FingerprintBytes FixedString(16) MATERIALIZED toFixedString(fingerprint, 16);

ALTER TABLE landing_logs ADD COLUMN IF NOT EXISTS ProcessIdBytes FixedString(16) MATERIALIZED toFixedString(receipt_process_id, 16),
    ADD COLUMN IF NOT EXISTS FingerprintBytes FixedString(16) MATERIALIZED toFixedString(fingerprint, 16);

ALTER TABLE landing_traces ADD COLUMN IF NOT EXISTS ProcessIdBytes FixedString(16) MATERIALIZED toFixedString(receipt_process_id, 16),
    ADD COLUMN IF NOT EXISTS FingerprintBytes FixedString(16) MATERIALIZED toFixedString(fingerprint, 16);

ALTER TABLE landing_dead_letters ADD COLUMN IF NOT EXISTS EntryIdBytes FixedString(16) MATERIALIZED toFixedString(letter_id, 16),
    ADD COLUMN IF NOT EXISTS EntryBatchIdBytes FixedString(16) MATERIALIZED toFixedString(letter_batch_id, 16),
    ADD COLUMN IF NOT EXISTS EventIdBytes FixedString(16) MATERIALIZED toFixedString(event_id, 16),
    ADD COLUMN IF NOT EXISTS EventEntryIdBytes FixedString(16) MATERIALIZED toFixedString(event_dead_letter_id, 16),
    ADD COLUMN IF NOT EXISTS EventBatchIdBytes FixedString(16) MATERIALIZED toFixedString(event_batch_id, 16);
