-- Puts pairs in quarantine: claims refuse them, and a backoff without end keeps them out of what retrievals offer,
-- unless somebody has theirs locked: nothing here waits.
WITH chosen AS (
    SELECT u.machine_id, u.process, u.session_id, u.component, u.token, u.cause
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::text[])
        AS u (machine_id, process, session_id, component, token, cause)
), marked AS (
    UPDATE work_loss AS l SET quarantined_at = clock_timestamp()
    FROM chosen
    WHERE l.machine_id = chosen.machine_id AND l.process = chosen.process AND l.quarantined_at IS NULL
    RETURNING chosen.machine_id, chosen.process, chosen.session_id, chosen.component, chosen.token, chosen.cause
), kept_away AS (
    INSERT INTO work_backoff (machine_id, process, until, cause)
    SELECT marked.machine_id, marked.process, '9999-12-31 00:00:00+00', marked.cause
    FROM marked
    LEFT JOIN work_backoff AS stored ON stored.machine_id = marked.machine_id AND stored.process = marked.process
    WHERE stored.machine_id IS NULL OR (
        SELECT free.machine_id FROM work_backoff AS free
        WHERE free.machine_id = marked.machine_id AND free.process = marked.process
        FOR UPDATE SKIP LOCKED
    ) IS NOT NULL
    ORDER BY marked.machine_id, marked.process
    ON CONFLICT (machine_id, process) DO UPDATE SET until = excluded.until, cause = excluded.cause
    RETURNING 1
)
INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token)
SELECT machine_id, process, 'Quarantined', cause, session_id, component, token FROM marked
