-- Leases a machine to a session. The primary key of work refuses a second lease of the pair; updating the token's row
-- refuses a claim judged on a snapshot older than a rival's.
WITH granted AS (
    INSERT INTO work_token (machine_id, process, token) VALUES ($1, $3, 1)
    ON CONFLICT (machine_id, process) DO UPDATE SET token = work_token.token + 1
    RETURNING machine_id, process, token
)
INSERT INTO work (machine_id, process, session_id, token, work_started_at)
SELECT machine_id, process, $2, token, clock_timestamp() FROM granted
RETURNING token;
