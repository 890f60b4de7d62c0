-- A session while it is live, read without a lock. The fence of a transaction is another statement, which locks.
SELECT session_id, session_component_name, session_runtime_info, session_created_at, session_interval_seconds,
       session_deadline, session_deadline > clock_timestamp() AS session_live
FROM sessions
WHERE session_id = $1 AND session_deadline > clock_timestamp();
