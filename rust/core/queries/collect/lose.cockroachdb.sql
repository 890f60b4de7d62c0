-- As collect/lose.sql, without notes and hints, and without the sessions themselves: see session/delete.sql. The fences go first: with
-- the priority of this transaction that ends the holders' transactions which are open still.
WITH unfenced AS (
    DELETE FROM session_fence WHERE session_id = ANY($1::uuid[]) RETURNING 1
), lost AS (
    DELETE FROM work WHERE session_id = ANY($1::uuid[]) RETURNING machine_id, process, session_id, token, lease_id
), named AS MATERIALIZED (
    SELECT lost.machine_id, lost.process, lost.session_id, lost.token, lost.lease_id, s.session_component_name AS component
    FROM lost JOIN sessions AS s ON s.session_id = lost.session_id
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Lost', session_id, component, token, lease_id FROM named
    RETURNING 1
), counted AS (
    INSERT INTO work_loss (machine_id, process, losses, last_lost_at)
    SELECT lost.machine_id, lost.process,
        CASE
            WHEN l.losses IS NULL OR EXISTS (
                SELECT 1 FROM work_history AS h
                WHERE h.machine_id = l.machine_id AND h.process = l.process AND h."timestamp" > l.last_lost_at
                    AND h.event IN ('Finished', 'Failed', 'Canceled')
            ) THEN 1 ELSE l.losses + 1
        END,
        clock_timestamp()
    FROM lost
    JOIN machines AS m ON m.machine_id = lost.machine_id
    LEFT JOIN work_loss AS l ON l.machine_id = lost.machine_id AND l.process = lost.process
    ORDER BY lost.machine_id, lost.process
    ON CONFLICT (machine_id, process) DO UPDATE SET losses = excluded.losses, last_lost_at = excluded.last_lost_at
    RETURNING machine_id, process, losses
)
SELECT totals.sessions, totals.leases, what.*
FROM (
    SELECT (SELECT count(*) FROM sessions WHERE session_id = ANY($1::uuid[])) AS sessions,
        (SELECT count(*) FROM lost) AS leases,
        (SELECT count(*) FROM unfenced) AS fences, (SELECT count(*) FROM audited) AS audited
) AS totals
LEFT JOIN (
    SELECT named.machine_id, named.process, named.session_id, named.component, named.token, counted.losses,
        p.crash_backoff_initial, p.crash_backoff_maximum, p.crash_backoff_exponent, p.crash_backoff_jitter,
        p.quarantine_after, b.last_interval_seconds
    FROM named
    JOIN counted ON counted.machine_id = named.machine_id AND counted.process = named.process
    JOIN processes AS p ON p.process = named.process
    LEFT JOIN work_backoff AS b ON b.machine_id = named.machine_id AND b.process = named.process
) AS what ON true
