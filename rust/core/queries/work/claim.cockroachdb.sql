-- As work/claim.sql. In SERIALIZABLE a rival's claim of the same machine, or one of an excluding process, is a conflict of what one has
-- read with what the other has written, whether it has finished since or not: one of the two is done again (40001), and then
-- sees the lease. Advisory locks do nothing there, so the first free machine is the one.
WITH rival AS MATERIALIZED (
    SELECT CASE p.process WHEN $2::text THEN p.excluded ELSE p.process END AS name
    FROM process_exclusion AS p WHERE p.process = $2::text OR p.excluded = $2::text
), candidate AS MATERIALIZED (
    SELECT u.machine_id
    FROM unnest($1::uuid[]) WITH ORDINALITY AS u (machine_id, position)
    JOIN machines AS m ON m.machine_id = u.machine_id
    WHERE NOT EXISTS (
            SELECT 1 FROM work AS w
            WHERE w.machine_id = u.machine_id AND (w.process = $2::text OR w.process IN (SELECT name FROM rival))
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_loss AS l
            WHERE l.machine_id = u.machine_id AND l.process = $2::text AND l.quarantined_at IS NOT NULL
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_hold AS h
            WHERE h.machine_id = u.machine_id AND h.process IN ('', $2::text)
                AND (h.until IS NULL OR h.until > clock_timestamp())
        )
    ORDER BY u.position
    LIMIT 1
), numbered AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT machine_id, $2::text, 1 FROM candidate
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + 1
    RETURNING machine_id, token
), leased AS (
    INSERT INTO work (machine_id, process, session_id, token, lease_id)
    SELECT machine_id, $2::text, $3::uuid, token, $5::uuid FROM numbered
    RETURNING machine_id, token
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, $2::text, 'Started', $3::uuid, $4::text, token, $5::uuid FROM leased
    RETURNING 1
)
SELECT leased.machine_id, leased.token, b.last_interval_seconds, (SELECT count(*) FROM audited) AS audited
FROM leased
LEFT JOIN work_backoff AS b ON b.machine_id = leased.machine_id AND b.process = $2::text
