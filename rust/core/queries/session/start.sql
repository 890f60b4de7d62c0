-- The id is made by the client, so that a start whose answer was lost can be looked up.
INSERT INTO sessions (session_id, session_component_name, session_runtime_info, session_interval_seconds, session_deadline)
VALUES ($1, $2, $3, $4, clock_timestamp() + $4::int * interval '1 second')
