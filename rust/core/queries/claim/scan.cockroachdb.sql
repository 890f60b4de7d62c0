-- As claim/scan.sql, in SERIALIZABLE: what was eligible for the snapshot is so when the claim commits, or it is done again (40001).
-- What is to be leased is chosen first and locked then, by its key: a lock is taken where a row is read, so that a scan with
-- SKIP LOCKED would keep rivals from all that it went through.
WITH live AS MATERIALIZED (
    SELECT session_id FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp()
        AND $4::uuid IS NOT NULL AND $5::bigint IS NOT NULL
), rival AS MATERIALIZED (
    SELECT CASE p.process WHEN $2::text THEN p.excluded ELSE p.process END AS name
    FROM process_exclusion AS p WHERE p.process = $2::text OR p.excluded = $2::text
), chosen AS MATERIALIZED (
    SELECT /*key*/ machines.machine_id
    FROM /*source*/ machines
    WHERE /*eligible*/ true
        AND EXISTS (SELECT 1 FROM live)
        AND NOT EXISTS (
            SELECT 1 FROM work AS w
            WHERE w.machine_id = /*key*/ machines.machine_id AND (w.process = $2::text OR w.process IN (SELECT name FROM rival))
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_backoff AS b
            WHERE b.machine_id = /*key*/ machines.machine_id AND b.process = $2::text AND b.until > clock_timestamp()
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_loss AS l
            WHERE l.machine_id = /*key*/ machines.machine_id AND l.process = $2::text AND l.quarantined_at IS NOT NULL
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_hold AS h
            WHERE h.machine_id = /*key*/ machines.machine_id AND h.process IN ('', $2::text)
                AND (h.until IS NULL OR h.until > clock_timestamp())
        )
    /*order*/
    LIMIT $6
), candidate AS MATERIALIZED (
    SELECT m.machine_id FROM machines AS m WHERE m.machine_id IN (SELECT machine_id FROM chosen) FOR UPDATE SKIP LOCKED
), numbered AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT machine_id, $2::text, 1 FROM candidate ORDER BY machine_id
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + 1
    RETURNING machine_id, token
)
INSERT INTO work (machine_id, process, session_id, token, lease_id)
SELECT machine_id, $2::text, $1::uuid, token,
    (left($3::uuid::text, 32) || lpad(to_hex(row_number() OVER ()), 4, '0'))::uuid
FROM numbered
ON CONFLICT (machine_id, process) DO NOTHING
