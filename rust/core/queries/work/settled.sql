-- Locks what is there of the leases $2 to $3 of session $1: so whoever claims or ends them has done so, or will not, when this returns.
SELECT lease_id FROM work WHERE session_id = $1 AND lease_id BETWEEN $2 AND $3 FOR UPDATE
