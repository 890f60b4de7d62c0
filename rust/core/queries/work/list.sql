-- The leases on these machines with the sessions that hold them, those of expired sessions included.
SELECT work.machine_id, work.process, work.session_id, work.token, work.work_started_at,
       sessions.session_component_name, sessions.session_runtime_info,
       sessions.session_deadline > clock_timestamp() AS session_live
FROM work
JOIN sessions ON sessions.session_id = work.session_id
WHERE work.machine_id = ANY($1::uuid[])
ORDER BY work.machine_id, work.process;
