-- As work/start.sql. There is no trigger: beside an excluding process nothing is leased, and no row comes back.
WITH granted AS (
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT $1::uuid, $3::text, 1
    WHERE NOT EXISTS (
        SELECT 1 FROM work AS w
        JOIN process_exclusion AS p
            ON (p.process = $3::text AND p.excluded = w.process) OR (p.excluded = $3::text AND p.process = w.process)
        WHERE w.machine_id = $1::uuid
    )
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token + 1
    RETURNING token
)
INSERT INTO work (machine_id, process, session_id, token, work_started_at)
SELECT $1::uuid, $3::text, $2::uuid, token, clock_timestamp() FROM granted
RETURNING token;
