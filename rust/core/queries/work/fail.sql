-- $7 is the wait, $8 the period that the next one grows from (the wait before jitter), both in seconds.
WITH ended AS (
    DELETE FROM work
    WHERE machine_id = $1 AND process = $2 AND session_id = $3 AND token = $4
    RETURNING machine_id, process, session_id, token
), backed_off AS (
    INSERT INTO work_backoff AS b (machine_id, process, until, cause, last_interval_seconds)
    SELECT machine_id, process, clock_timestamp() + $7::bigint * interval '1 second', $6::text, $8::bigint FROM ended
    ON CONFLICT (machine_id, process) DO UPDATE
    SET until = excluded.until, cause = excluded.cause, last_interval_seconds = excluded.last_interval_seconds
    RETURNING 1
), recovered AS (
    DELETE FROM work_loss AS l USING ended
    WHERE l.machine_id = ended.machine_id AND l.process = ended.process AND l.quarantined_at IS NULL
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token)
    SELECT machine_id, process, 'Failed', $6::text, session_id, $5::text, token FROM ended
    RETURNING 1
)
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    pg_advisory_xact_lock_shared(hashtextextended(ended.session_id::text, 7226)) AS marked,
    (SELECT count(*) FROM backed_off) AS backed_off,
    (SELECT count(*) FROM audited) AS audited
FROM ended
