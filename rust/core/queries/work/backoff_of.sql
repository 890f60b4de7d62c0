-- A backoff, also one that has run out: its last interval still feeds the next.
SELECT machine_id, process, until, cause, last_interval_seconds
FROM work_backoff
WHERE machine_id = $1 AND process = $2;
