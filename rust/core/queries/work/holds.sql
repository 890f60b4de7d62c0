-- The holds in force on this machine, or on all if it is NULL; no process means all of them.
SELECT machine_id, nullif(process, '') AS process, owner, reason, held_at, until
FROM work_hold
WHERE ($1::uuid IS NULL OR machine_id = $1::uuid) AND (until IS NULL OR until > clock_timestamp())
ORDER BY machine_id, work_hold.process
