-- After MODIFY QUERY (0009) a view has other deduplication tokens until ClickHouse is started again: a new name gives it those
-- that it keeps. See 0008.
RENAME TABLE IF EXISTS landing_metrics_to_receipts TO landing_metrics_to_messages;

RENAME TABLE IF EXISTS landing_logs_to_receipts TO landing_logs_to_messages;

RENAME TABLE IF EXISTS landing_traces_to_receipts TO landing_traces_to_messages;
