-- Whoever waits for work of the process is told that the machine is free (see work/notify.sql).
WITH ended AS (
    DELETE FROM work
    WHERE machine_id = $1 AND process = $2 AND session_id = $3 AND token = $4
    RETURNING machine_id, process, session_id, token
), recovered AS (
    DELETE FROM work_loss AS l USING ended
    WHERE l.machine_id = ended.machine_id AND l.process = ended.process AND l.quarantined_at IS NULL
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token)
    SELECT machine_id, process, 'Canceled', session_id, $5::text, token FROM ended
    RETURNING 1
)
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    pg_advisory_xact_lock_shared(hashtextextended(ended.session_id::text, 7226)) AS marked,
    pg_notify('bmdb_work', ended.process) AS told,
    (SELECT count(*) FROM audited) AS audited
FROM ended
