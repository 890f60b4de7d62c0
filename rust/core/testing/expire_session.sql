-- As if no beat had come for the whole interval. The next beat finds nothing to renew.
UPDATE sessions SET session_deadline = clock_timestamp() - interval '1 microsecond'
WHERE session_id = $1::uuid AND session_deadline > clock_timestamp()
