-- Leases the first machine offered that nobody holds under this process, in the order offered.
-- The advisory lock turns a rival's claim in flight into "taken" without waiting for it; the update of work_token
-- fails (40001) when a rival claimed after this transaction's snapshot was taken, even if it has finished since.
WITH candidate AS (
    SELECT offered.machine_id
    FROM (
        SELECT u.machine_id
        FROM unnest($1::uuid[]) WITH ORDINALITY AS u (machine_id, position)
        JOIN machines AS m ON m.machine_id = u.machine_id
        WHERE NOT EXISTS (SELECT 1 FROM work AS w WHERE w.machine_id = u.machine_id AND w.process = $2::text)
        ORDER BY u.position
        OFFSET 0
    ) AS offered
    WHERE pg_try_advisory_xact_lock(hashtextextended(offered.machine_id::text || $2::text, 7225))
    LIMIT 1
), numbered AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT machine_id, $2::text, 1 FROM candidate
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + 1
    RETURNING t.machine_id, t.token
), leased AS (
    INSERT INTO work (machine_id, process, session_id, token)
    SELECT machine_id, $2::text, $3::uuid, token FROM numbered
    ON CONFLICT (machine_id, process) DO NOTHING
    RETURNING machine_id, token
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token)
    SELECT machine_id, $2::text, 'Started', $3::uuid, $4::text, token FROM leased
    RETURNING 1
)
SELECT leased.machine_id, leased.token, b.last_interval_seconds, (SELECT count(*) FROM audited) AS audited
FROM leased
LEFT JOIN work_backoff AS b ON b.machine_id = leased.machine_id AND b.process = $2::text
