-- An operator ends a backoff that keeps the process off the machine, and with it the memory of its length: the next is a first one.
-- That of a quarantine is not touched: see work/release_quarantine.sql. $3 says who and why. Who waits is told.
WITH cleared AS (
    DELETE FROM work_backoff
    WHERE machine_id = $1 AND process = $2 AND until > clock_timestamp() AND until <> '9999-12-31 00:00:00+00'
    RETURNING machine_id, process, until, cause, last_interval_seconds
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT DISTINCT cleared.process, w.watcher, cleared.machine_id
    FROM cleared JOIN process_watch AS w ON w.process = cleared.process
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, component)
    SELECT machine_id, process, 'BackoffCleared', $3::text, $4::text FROM cleared
)
SELECT machine_id, process, until, cause, last_interval_seconds FROM cleared
WHERE (SELECT count(pg_notify('bmdb_work', told.process)) FROM (SELECT cleared.process) AS told) = 1
