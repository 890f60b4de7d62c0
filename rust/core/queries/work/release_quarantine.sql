-- Ends a quarantine, with all that it was made of: the losses, and the backoff without end.
WITH released AS (
    DELETE FROM work_loss WHERE machine_id = $1 AND process = $2 AND quarantined_at IS NOT NULL
    RETURNING machine_id, process
), freed AS (
    DELETE FROM work_backoff AS b USING released AS r
    WHERE b.machine_id = r.machine_id AND b.process = r.process AND b.until = '9999-12-31 00:00:00+00'
    RETURNING 1
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT DISTINCT released.process, w.watcher, released.machine_id
    FROM released JOIN process_watch AS w ON w.process = released.process
    RETURNING 1
)
INSERT INTO work_history (machine_id, process, event, failed_cause, component)
SELECT machine_id, process, 'QuarantineReleased', $4::text, $3::text FROM released
-- Whoever waits for work of the process is told (see work/notify.sql).
WHERE (SELECT count(pg_notify('bmdb_work', told.process)) FROM (SELECT released.process) AS told) = 1
