-- For how many seconds the longest expired session has waited to be collected; 0 if none does.
SELECT greatest(0, COALESCE(extract(epoch FROM clock_timestamp() - min(session_deadline)), 0))::float8 AS seconds
FROM sessions
WHERE session_deadline < clock_timestamp();
