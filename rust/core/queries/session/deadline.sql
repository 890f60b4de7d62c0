-- The deadline of a session that is still live.
SELECT session_deadline FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp()
