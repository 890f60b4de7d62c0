-- The backoffs that keep processes off these machines now.
SELECT machine_id, process, until, cause, last_interval_seconds
FROM work_backoff
WHERE machine_id = ANY($1::uuid[]) AND until > statement_timestamp()
ORDER BY machine_id, process;
