-- What a session holds, oldest first, and how much that is.
SELECT machine_id, process, token, work_started_at, count(*) OVER () AS leases
FROM work
WHERE session_id = $1
ORDER BY work_started_at, machine_id, process
LIMIT $2
