UPDATE sessions
SET session_deadline = clock_timestamp() + session_interval_seconds * interval '1 second'
WHERE session_id = ANY($1::uuid[]) AND session_deadline > clock_timestamp()
RETURNING session_id, session_deadline
