-- As collect/quarantine.sql. Nobody is waited for: this transaction has priority.
WITH chosen AS MATERIALIZED (
    SELECT u.machine_id, u.process, u.session_id, u.component, u.token, u.cause
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::text[])
        AS u (machine_id, process, session_id, component, token, cause)
), marked AS (
    UPDATE work_loss SET quarantined_at = clock_timestamp()
    WHERE machine_id = ANY ($1::uuid[]) AND quarantined_at IS NULL
        AND (machine_id, process) IN (SELECT machine_id, process FROM chosen)
    RETURNING machine_id, process
), told AS MATERIALIZED (
    SELECT chosen.machine_id, chosen.process, chosen.session_id, chosen.component, chosen.token, chosen.cause
    FROM marked JOIN chosen ON chosen.machine_id = marked.machine_id AND chosen.process = marked.process
), kept_away AS (
    INSERT INTO work_backoff (machine_id, process, until, cause)
    SELECT machine_id, process, '9999-12-31 00:00:00+00'::timestamptz, cause FROM told
    ORDER BY machine_id, process
    ON CONFLICT (machine_id, process) DO UPDATE SET until = excluded.until, cause = excluded.cause
    RETURNING 1
)
INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token)
SELECT machine_id, process, 'Quarantined', cause, session_id, component, token FROM told
