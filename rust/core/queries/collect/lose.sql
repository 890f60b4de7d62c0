-- Ends the leases of these sessions and the sessions, counts the losses, and tells what follows from each by the process's
-- definition. There is one row at least. A machine that somebody has locked is neither counted nor backed off: nothing here waits. Whoever
-- waits for work of their processes is told (see work/notify.sql).
WITH lost AS (
    DELETE FROM work WHERE session_id = ANY($1::uuid[]) RETURNING machine_id, process, session_id, token, lease_id
), named AS (
    SELECT lost.machine_id, lost.process, lost.session_id, lost.token, lost.lease_id, s.session_component_name AS component
    FROM lost JOIN sessions AS s ON s.session_id = lost.session_id
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Lost', session_id, component, token, lease_id FROM named
    RETURNING 1
), attended AS (
    -- Due at once: a crash backoff that follows brings one of its own (see back_off.sql).
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT lost.process, w.watcher, lost.machine_id FROM lost
    CROSS JOIN LATERAL (SELECT DISTINCT watcher FROM process_watch WHERE process = lost.process OFFSET 0) AS w
    RETURNING 1
), counted AS (
    INSERT INTO work_loss AS l (machine_id, process, losses, last_lost_at)
    SELECT free.machine_id, free.process, 1, clock_timestamp()
    FROM (
        SELECT lost.machine_id, lost.process
        FROM lost JOIN machines AS m ON m.machine_id = lost.machine_id
        FOR KEY SHARE OF m SKIP LOCKED
    ) AS free
    ORDER BY free.machine_id, free.process
    -- Workers of schema 2 end work without forgetting the losses, but write history as all do.
    ON CONFLICT (machine_id, process) DO UPDATE
    SET losses = 1 + CASE WHEN EXISTS (
            SELECT 1 FROM work_history AS h
            WHERE h.machine_id = l.machine_id AND h.process = l.process AND h."timestamp" > l.last_lost_at
                AND h.event IN ('Finished', 'Failed', 'Canceled')
        ) THEN 0 ELSE l.losses END,
        last_lost_at = excluded.last_lost_at
    RETURNING l.machine_id, l.process, l.losses
), ended AS (
    DELETE FROM sessions WHERE session_id = ANY($1::uuid[]) RETURNING 1
)
SELECT totals.sessions, totals.leases, totals.told, what.*
FROM (
    SELECT (SELECT count(*) FROM ended) AS sessions, (SELECT count(*) FROM lost) AS leases,
        (SELECT count(pg_notify('bmdb_work', process)) FROM (SELECT DISTINCT process FROM lost) AS freed) AS told
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
