-- As collect/back_off.sql, without notes. Nobody is waited for: this transaction has priority.
INSERT INTO work_backoff AS b (machine_id, process, until, cause, last_interval_seconds)
SELECT u.machine_id, u.process, clock_timestamp() + u.wait * interval '1 second', u.cause, u.period
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
    AS u (machine_id, process, wait, period, cause)
ORDER BY u.machine_id, u.process
ON CONFLICT (machine_id, process) DO UPDATE
SET until = greatest(b.until, excluded.until),
    cause = CASE WHEN b.until > excluded.until THEN b.cause ELSE excluded.cause END,
    last_interval_seconds = excluded.last_interval_seconds
