-- An operator ends a lease whose holder does not: $3 says who and why. The holder's end finds no lease with its token any more.
-- Whoever waits for work of the process is told (see work/notify.sql).
WITH released AS (
    DELETE FROM work WHERE machine_id = $1 AND process = $2 RETURNING machine_id, process, session_id, token, lease_id, work_started_at
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT DISTINCT released.process, w.watcher, released.machine_id
    FROM released JOIN process_watch AS w ON w.process = released.process
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Released', $3::text, session_id, $4::text, token, lease_id FROM released
)
SELECT released.machine_id, released.process, released.session_id, released.token, released.work_started_at,
       sessions.session_component_name, sessions.session_runtime_info,
       sessions.session_deadline > clock_timestamp() AS session_live
FROM released
JOIN sessions ON sessions.session_id = released.session_id
WHERE (SELECT count(pg_notify('bmdb_work', told.process)) FROM (SELECT released.process) AS told) = 1
