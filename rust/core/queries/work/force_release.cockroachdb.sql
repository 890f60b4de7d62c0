-- As work/force_release.sql, and nobody is told.
WITH released AS (
    DELETE FROM work WHERE machine_id = $1 AND process = $2 RETURNING machine_id, process, session_id, token, lease_id, work_started_at
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Released', $3::text, session_id, $4::text, token, lease_id FROM released
    RETURNING 1
)
SELECT released.machine_id, released.process, released.session_id, released.token, released.work_started_at,
       sessions.session_component_name, sessions.session_runtime_info,
       sessions.session_deadline > clock_timestamp() AS session_live
FROM released
JOIN sessions ON sessions.session_id = released.session_id
