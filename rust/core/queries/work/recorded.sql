-- Whether this lease's event is in history, which is written together with the lease and never taken back.
SELECT 1 AS recorded FROM work_history
WHERE machine_id = $1 AND process = $2 AND session_id = $3 AND token = $4 AND event = $5
