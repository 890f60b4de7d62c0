-- Whether this lease's event is in history, which is written together with the lease and never taken back.
SELECT 1 AS recorded FROM work_history WHERE lease_id = $1 AND event = $2
