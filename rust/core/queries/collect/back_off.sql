-- The crash backoffs of leases that were lost. A longer one that is there already stays, and so does one that somebody has
-- locked: nothing here waits. A process that watches tags is
-- reminded of the machine at the backoff's end.
WITH backed_off AS (
    INSERT INTO work_backoff AS b (machine_id, process, until, cause, last_interval_seconds)
    SELECT u.machine_id, u.process, clock_timestamp() + u.wait * interval '1 second', u.cause, u.period
    FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
        AS u (machine_id, process, wait, period, cause)
    LEFT JOIN work_backoff AS stored ON stored.machine_id = u.machine_id AND stored.process = u.process
    WHERE stored.machine_id IS NULL OR (
        SELECT free.machine_id FROM work_backoff AS free
        WHERE free.machine_id = u.machine_id AND free.process = u.process
        FOR UPDATE SKIP LOCKED
    ) IS NOT NULL
    ORDER BY u.machine_id, u.process
    ON CONFLICT (machine_id, process) DO UPDATE
    SET until = greatest(b.until, excluded.until),
        cause = CASE WHEN b.until > excluded.until THEN b.cause ELSE excluded.cause END,
        last_interval_seconds = excluded.last_interval_seconds
    RETURNING b.machine_id, b.process, b.until
)
INSERT INTO work_attention (process, watcher, machine_id, due)
SELECT backed_off.process, w.watcher, backed_off.machine_id, backed_off.until FROM backed_off
CROSS JOIN LATERAL (SELECT DISTINCT watcher FROM process_watch WHERE process = backed_off.process OFFSET 0) AS w
