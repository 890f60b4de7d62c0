-- Locks the expired sessions' leases without waiting and names the sessions of which one is being ended right now.
WITH free AS MATERIALIZED (
    SELECT machine_id, process FROM work WHERE session_id = ANY($1::uuid[]) FOR UPDATE SKIP LOCKED
)
SELECT DISTINCT w.session_id
FROM work AS w
LEFT JOIN free ON free.machine_id = w.machine_id AND free.process = w.process
WHERE w.session_id = ANY($1::uuid[]) AND free.machine_id IS NULL
