-- As work/release_hold.sql, without notes, and nobody is told.
WITH released AS (
    DELETE FROM work_hold WHERE machine_id = $1 AND process = $2 RETURNING machine_id, process, owner, reason
)
INSERT INTO work_history (machine_id, process, event, failed_cause, component)
SELECT machine_id, process, 'Released', coalesce($4::text, owner || ': ' || reason), $3::text FROM released
