-- Leases a machine to a session. The primary key of work refuses a second lease of the pair, its trigger one beside an
-- excluding process; updating the tokens' rows, in the order of claim.sql, refuses a claim judged on a snapshot older
-- than a rival's.
WITH granted AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT $1, touched.name, CASE touched.name WHEN $3::text THEN 1 ELSE 0 END
    FROM (
        SELECT $3::text
        UNION
        SELECT CASE p.process WHEN $3::text THEN p.excluded ELSE p.process END
        FROM process_exclusion AS p WHERE p.process = $3::text OR p.excluded = $3::text
    ) AS touched (name)
    ORDER BY touched.name COLLATE "C"
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + excluded.token
    RETURNING t.process, t.token
)
INSERT INTO work (machine_id, process, session_id, token, work_started_at)
SELECT $1, $3, $2, max(token) FILTER (WHERE process = $3::text), clock_timestamp() FROM granted
RETURNING token;
