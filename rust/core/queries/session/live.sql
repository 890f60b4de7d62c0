SELECT session_id FROM sessions WHERE session_id = ANY($1::uuid[]) AND session_deadline > clock_timestamp()
