-- A session whose holder is inside a fenced transaction is locked FOR KEY SHARE and skipped; the next pass takes it.
SELECT session_id FROM sessions
WHERE session_deadline < clock_timestamp()
ORDER BY session_id
LIMIT $1
FOR UPDATE SKIP LOCKED
