SELECT 1 AS held FROM work WHERE machine_id = $1 AND process = $2 AND session_id = $3 AND token = $4
