-- The period starts when the row is written: now() stands still from BEGIN on, and would shorten the backoff by the
-- time that the transaction took.
INSERT INTO work_backoff (machine_id, process, cause, until, last_interval_seconds)
VALUES ($1, $2, $3, clock_timestamp() + $4::bigint * interval '1 second', $4::bigint)
ON CONFLICT (machine_id, process) DO UPDATE
SET cause = excluded.cause, until = excluded.until, last_interval_seconds = excluded.last_interval_seconds;
