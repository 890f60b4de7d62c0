-- Backoffs of process $1 on machine $2, or of all where they are NULL, the next to end first; with $3 those that have ended, too.
SELECT machine_id, process, until, cause, last_interval_seconds
FROM work_backoff
WHERE process = COALESCE($1::text, process) AND machine_id = COALESCE($2::uuid, machine_id)
  AND ($3::bool OR until > statement_timestamp())
ORDER BY until, machine_id, process
LIMIT $4;
