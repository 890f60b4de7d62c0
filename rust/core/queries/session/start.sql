-- The deadline is read off the clock, not off the start of the transaction; the id is made by the client.
INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds, session_deadline)
VALUES ($1, $2, $3, $4, clock_timestamp() + $4::int * interval '1 second')
