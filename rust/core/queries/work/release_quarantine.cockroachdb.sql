-- As work/release_quarantine.sql, without notes, and nobody is told.
WITH released AS (
    DELETE FROM work_loss WHERE machine_id = $1 AND process = $2 AND quarantined_at IS NOT NULL
    RETURNING machine_id, process
), freed AS (
    DELETE FROM work_backoff
    WHERE until = '9999-12-31 00:00:00+00' AND (machine_id, process) IN (SELECT machine_id, process FROM released)
    RETURNING 1
)
INSERT INTO work_history (machine_id, process, event, failed_cause, component)
SELECT machine_id, process, 'QuarantineReleased', $4::text, $3::text FROM released
