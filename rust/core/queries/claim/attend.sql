-- As claim/scan.sql, from what work_attention names for the watcher $7 of the process: the $5 rows that have been due for longest. What turns out
-- not to be eligible, and what is claimed, needs no attention any more; what is eligible but for a lease that somebody has is
-- looked at again once that lease is twice as old, since its end may tell nobody: after a second at least, a minute at most. $4 is
-- not used: the parameters are the scan's.
WITH live AS MATERIALIZED (
    SELECT session_id FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp()
        AND $4::uuid IS NOT NULL
    FOR KEY SHARE
), rival AS MATERIALIZED (
    SELECT ARRAY(
        SELECT CASE p.process WHEN $2::text THEN p.excluded ELSE p.process END
        FROM process_exclusion AS p WHERE p.process = $2::text OR p.excluded = $2::text
    ) || $2::text AS names
), noticed AS MATERIALIZED (
    SELECT a.ctid AS place, a.machine_id
    FROM work_attention AS a
    WHERE a.process = $2::text AND a.watcher = $7::text AND a.due <= statement_timestamp() AND EXISTS (SELECT 1 FROM live)
    ORDER BY a.due
    LIMIT $5
    FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT noticed.machine_id,
        (
            SELECT max(w.work_started_at) FROM work AS w
            WHERE w.machine_id = noticed.machine_id AND w.process = ANY ((SELECT names FROM rival)::text[])
        ) AS taken_at,
        /*attended*/ true
        AND NOT EXISTS (
            SELECT 1 FROM work_backoff AS b
            WHERE b.machine_id = noticed.machine_id AND b.process = $2::text AND b.until > clock_timestamp() OFFSET 0
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_loss AS l
            WHERE l.machine_id = noticed.machine_id AND l.process = $2::text AND l.quarantined_at IS NOT NULL OFFSET 0
        )
        AND NOT EXISTS (
            SELECT 1 FROM work_hold AS h
            WHERE h.machine_id = noticed.machine_id AND h.process IN ('', $2::text)
                AND (h.until IS NULL OR h.until > clock_timestamp()) OFFSET 0
        ) AS eligible
    FROM (SELECT DISTINCT machine_id FROM noticed) AS noticed
), candidate AS MATERIALIZED (
    SELECT judged.machine_id
    FROM judged
    CROSS JOIN LATERAL (
        SELECT 1 FROM machines AS m WHERE m.machine_id = judged.machine_id FOR NO KEY UPDATE SKIP LOCKED
    ) AS locked
    WHERE judged.eligible AND judged.taken_at IS NULL
    LIMIT $6
), numbered AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT machine_id, $2::text, 1 FROM candidate ORDER BY machine_id
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + 1
    RETURNING machine_id, token
), leased AS (
    INSERT INTO work (machine_id, process, session_id, token, lease_id)
    SELECT machine_id, $2::text, $1::uuid, token,
        (left($3::uuid::text, 32) || lpad(to_hex(row_number() OVER ()), 4, '0'))::uuid
    FROM numbered
    ON CONFLICT (machine_id, process) DO NOTHING
    RETURNING machine_id
), done AS (
    DELETE FROM work_attention AS a
    WHERE a.ctid = ANY (ARRAY(
        SELECT noticed.place FROM noticed
        WHERE noticed.machine_id IN (SELECT machine_id FROM leased)
            OR noticed.machine_id IN (SELECT machine_id FROM judged WHERE eligible IS NOT TRUE)
    ))
), put_off AS (
    UPDATE work_attention AS a
    SET due = clock_timestamp() + least(greatest(clock_timestamp() - later.taken_at, interval '1 second'), interval '1 minute')
    FROM (
        SELECT noticed.place, judged.taken_at
        FROM noticed JOIN judged ON judged.machine_id = noticed.machine_id
        WHERE judged.eligible AND (
            judged.taken_at IS NOT NULL
            -- A rival has leased it since the snapshot.
            OR judged.machine_id IN (SELECT machine_id FROM candidate EXCEPT SELECT machine_id FROM leased)
        )
    ) AS later
    WHERE a.ctid = later.place
)
SELECT count(*) AS noticed FROM noticed
