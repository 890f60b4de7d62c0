-- Claims up to $6 machines for process $2: eligible ones among the $5 ids after $4, in READ COMMITTED. $1 is the session; $3
-- names this claim, and its leases count on from it (its last 16 bits are free for that). Written into it by eligibility.rs: the rows to judge and the condition.
-- A machine's row is locked while it is claimed, so that rivals pass it over. What was judged on an older snapshot than a
-- rival's finish is dropped again by claim/verify.sql.
WITH live AS MATERIALIZED (
    SELECT session_id FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp()
        AND $4::uuid IS NOT NULL AND $5::bigint IS NOT NULL
    FOR KEY SHARE
), rival AS MATERIALIZED (
    SELECT ARRAY(
        SELECT CASE p.process WHEN $2::text THEN p.excluded ELSE p.process END
        FROM process_exclusion AS p WHERE p.process = $2::text OR p.excluded = $2::text
    ) || $2::text AS names
), candidate AS MATERIALIZED (
    SELECT eligible.machine_id
    FROM (
        SELECT /*key*/ machines.machine_id
        FROM /*source*/ machines
        WHERE /*eligible*/ true
            AND EXISTS (SELECT 1 FROM live)
            AND NOT EXISTS (
                SELECT 1 FROM work AS w
                WHERE w.machine_id = /*key*/ machines.machine_id AND w.process = ANY ((SELECT names FROM rival)::text[]) OFFSET 0
            )
            AND NOT EXISTS (
                SELECT 1 FROM work_backoff AS b
                WHERE b.machine_id = /*key*/ machines.machine_id AND b.process = $2::text AND b.until > clock_timestamp() OFFSET 0
            )
            AND NOT EXISTS (
                SELECT 1 FROM work_loss AS l
                WHERE l.machine_id = /*key*/ machines.machine_id AND l.process = $2::text AND l.quarantined_at IS NOT NULL OFFSET 0
            )
            AND NOT EXISTS (
                SELECT 1 FROM work_hold AS h
                WHERE h.machine_id = /*key*/ machines.machine_id AND h.process IN ('', $2::text)
                    AND (h.until IS NULL OR h.until > clock_timestamp()) OFFSET 0
            )
        /*order*/
        OFFSET 0
    ) AS eligible
    CROSS JOIN LATERAL (
        SELECT 1 FROM machines AS m WHERE m.machine_id = eligible.machine_id FOR NO KEY UPDATE SKIP LOCKED
    ) AS locked
    LIMIT $6
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
