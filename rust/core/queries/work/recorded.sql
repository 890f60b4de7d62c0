-- Whether history has this event of one of the leases $1 to $2: it is written together with the lease and never taken back.
SELECT 1 AS recorded FROM work_history WHERE lease_id BETWEEN $1 AND $2 AND event = $3 LIMIT 1
