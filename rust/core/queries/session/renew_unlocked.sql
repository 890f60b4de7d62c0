-- After a beat that timed out: one row that somebody holds must not cost the other sessions their renewal.
UPDATE sessions
SET session_deadline = clock_timestamp() + session_interval_seconds * interval '1 second'
WHERE session_id IN (
    SELECT session_id FROM sessions
    WHERE session_id = ANY($1::uuid[]) AND session_deadline > clock_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING session_id, session_deadline
