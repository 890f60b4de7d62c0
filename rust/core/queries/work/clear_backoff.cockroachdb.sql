-- As work/clear_backoff.sql, and nobody is told.
WITH cleared AS (
    DELETE FROM work_backoff
    WHERE machine_id = $1 AND process = $2 AND until > clock_timestamp() AND until <> '9999-12-31 00:00:00+00'
    RETURNING machine_id, process, until, cause, last_interval_seconds
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, component)
    SELECT machine_id, process, 'BackoffCleared', $3::text, $4::text FROM cleared
    RETURNING 1
)
SELECT machine_id, process, until, cause, last_interval_seconds FROM cleared
