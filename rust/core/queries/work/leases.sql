-- Leases of process $1 by session $2, or of all where they are NULL, the oldest first, those of expired sessions included.
SELECT work.machine_id, work.process, work.session_id, work.token, work.work_started_at,
       sessions.session_component_name, sessions.session_runtime_info,
       sessions.session_deadline > clock_timestamp() AS session_live
FROM work
JOIN sessions ON sessions.session_id = work.session_id
WHERE work.process = COALESCE($1::text, work.process) AND work.session_id = COALESCE($2::uuid, work.session_id)
ORDER BY work.work_started_at, work.machine_id, work.process
LIMIT $3;
