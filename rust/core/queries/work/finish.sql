-- Deleting the lease is the fence: no row, no finish. The advisory lock names this backend to collection (see
-- session/fence.sql).
WITH ended AS (
    DELETE FROM work
    WHERE machine_id = $1 AND process = $2 AND session_id = $3 AND token = $4
    RETURNING machine_id, process, session_id, token
), forgiven AS (
    DELETE FROM work_backoff AS b USING ended WHERE b.machine_id = ended.machine_id AND b.process = ended.process
    RETURNING 1
), recovered AS (
    DELETE FROM work_loss AS l USING ended
    WHERE l.machine_id = ended.machine_id AND l.process = ended.process AND l.quarantined_at IS NULL
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token)
    SELECT machine_id, process, 'Finished', session_id, $5::text, token FROM ended
    RETURNING 1
)
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    pg_advisory_xact_lock_shared(hashtextextended(ended.session_id::text, 7226)) AS marked,
    (SELECT count(*) FROM forgiven) AS forgiven,
    (SELECT count(*) FROM audited) AS audited
FROM ended
