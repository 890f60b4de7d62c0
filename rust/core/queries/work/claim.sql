-- Leases the first machine offered that nobody holds under this process or one that excludes it, and that is not
-- quarantined nor held back by a person, in the order offered. $5 names the lease.
-- The advisory lock turns a rival's claim in flight into "taken" without waiting for it; the update of work_token
-- fails (40001) when a rival claimed after this transaction's snapshot was taken, even if it has finished since. For
-- that the rows of the processes that exclude this one are updated too, all in one order.
WITH rival AS MATERIALIZED (
    SELECT ARRAY(
        SELECT DISTINCT CASE p.process WHEN $2::text THEN p.excluded ELSE p.process END
        FROM process_exclusion AS p WHERE p.process = $2::text OR p.excluded = $2::text
    ) AS names
), candidate AS MATERIALIZED (
    SELECT free.machine_id
    FROM (
        SELECT offered.machine_id
        FROM (
            SELECT u.machine_id
            FROM unnest($1::uuid[]) WITH ORDINALITY AS u (machine_id, position)
            JOIN machines AS m ON m.machine_id = u.machine_id
            WHERE NOT EXISTS (
                SELECT 1 FROM work AS w
                WHERE w.machine_id = u.machine_id AND w.process = ANY ((SELECT names || $2::text FROM rival)::text[])
            )
            ORDER BY u.position
            OFFSET 0
        ) AS offered
        -- As a value, so that it is looked up one machine after another until one can be leased.
        WHERE (
            SELECT l.quarantined_at FROM work_loss AS l
            WHERE l.machine_id = offered.machine_id AND l.process = $2::text
        ) IS NULL AND (
            SELECT true FROM work_hold AS h
            WHERE h.machine_id = offered.machine_id AND h.process IN ('', $2::text)
                AND (h.until IS NULL OR h.until > clock_timestamp())
            LIMIT 1
        ) IS NULL
        OFFSET 0
    ) AS free
    -- Where processes exclude one another, the machine alone is what they compete for.
    WHERE pg_try_advisory_xact_lock(hashtextextended(
        free.machine_id::text || CASE (SELECT names FROM rival) WHEN '{}' THEN $2::text ELSE '' END, 7225))
    LIMIT 1
), numbered AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT candidate.machine_id, touched.name, CASE touched.name WHEN $2::text THEN 1 ELSE 0 END
    FROM candidate, unnest((SELECT names || $2::text FROM rival)) AS touched (name)
    ORDER BY touched.name COLLATE "C"
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + excluded.token
    RETURNING t.machine_id, t.process, t.token
), leased AS (
    INSERT INTO work (machine_id, process, session_id, token, lease_id)
    -- Grouped, so that all of them are updated before the trigger on work looks.
    SELECT machine_id, $2::text, $3::uuid, max(token) FILTER (WHERE process = $2::text), $5::uuid
    FROM numbered GROUP BY machine_id
    ON CONFLICT (machine_id, process) DO NOTHING
    RETURNING machine_id, token
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, $2::text, 'Started', $3::uuid, $4::text, token, $5::uuid FROM leased
    RETURNING 1
)
SELECT leased.machine_id, leased.token, b.last_interval_seconds, (SELECT count(*) FROM audited) AS audited
FROM leased
LEFT JOIN work_backoff AS b ON b.machine_id = leased.machine_id AND b.process = $2::text
