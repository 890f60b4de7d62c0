-- As session/end.sql, without notes and hints, and without the session itself: see session/delete.sql.
WITH released AS (
    DELETE FROM work WHERE session_id = $1::uuid RETURNING machine_id, process, token, lease_id
), recovered AS (
    DELETE FROM work_loss
    WHERE quarantined_at IS NULL AND (machine_id, process) IN (SELECT machine_id, process FROM released)
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Canceled', $1::uuid, $2::text, token, lease_id FROM released
    RETURNING 1
)
SELECT (SELECT count(*) FROM released) AS released, (SELECT count(*) FROM recovered) AS recovered,
    (SELECT count(*) FROM audited) AS audited
