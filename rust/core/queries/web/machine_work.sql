-- The leases on a machine with the sessions that hold them.
SELECT w.machine_id, w.process, w.session_id, w.token, w.work_started_at, s.session_component_name, s.session_runtime_info,
       s.session_deadline, s.session_deadline > clock_timestamp() AS session_live
FROM work AS w
JOIN sessions AS s ON s.session_id = w.session_id
WHERE w.machine_id = $1
ORDER BY w.process
