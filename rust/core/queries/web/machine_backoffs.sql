-- All backoffs of a machine, also those whose time has passed, which still feed the next period.
SELECT machine_id, process, until, cause, last_interval_seconds, until > statement_timestamp() AS active
FROM work_backoff
WHERE machine_id = $1
ORDER BY until DESC, process
