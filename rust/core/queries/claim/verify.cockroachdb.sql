-- As claim/verify.sql, in SERIALIZABLE, so that nothing is dropped: it tells what the claim has leased, and writes history.
WITH live AS MATERIALIZED (
    SELECT session_id FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp()
), judged AS MATERIALIZED (
    SELECT leased.machine_id, leased.token, leased.lease_id,
        (
            SELECT b.last_interval_seconds FROM work_backoff AS b
            WHERE b.machine_id = leased.machine_id AND b.process = $2::text
        ) AS last_interval_seconds,
        /*judged*/ true
        AND NOT EXISTS (
            SELECT 1 FROM work_backoff AS b
            WHERE b.machine_id = leased.machine_id AND b.process = $2::text AND b.until > clock_timestamp()
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_loss AS l
            WHERE l.machine_id = leased.machine_id AND l.process = $2::text AND l.quarantined_at IS NOT NULL
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_hold AS h
            WHERE h.machine_id = leased.machine_id AND h.process IN ('', $2::text)
                AND (h.until IS NULL OR h.until > clock_timestamp())
        ) AS stays
    FROM work AS leased
    WHERE leased.session_id = $1 AND leased.lease_id > $3 AND leased.lease_id <= (left($3::uuid::text, 32) || 'ffff')::uuid
), dropped AS (
    DELETE FROM work AS w
    WHERE w.machine_id = ANY (ARRAY(SELECT machine_id FROM judged WHERE stays IS NOT TRUE)) AND w.process = $2::text
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, $2::text, 'Started', $1::uuid, $4::text, token, lease_id FROM judged WHERE stays
    RETURNING 1
)
SELECT judged.machine_id, judged.token, judged.lease_id, judged.last_interval_seconds
FROM live LEFT JOIN judged ON judged.stays
