-- Renews a session that is still live. An expired one is never revived: collection may be ending its leases.
UPDATE sessions
SET session_deadline = clock_timestamp() + session_interval_seconds * interval '1 second'
WHERE session_id = $1 AND session_deadline > clock_timestamp();
