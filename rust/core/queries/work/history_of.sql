-- Everything that happened to a machine, oldest first.
SELECT machine_id, process, event, "timestamp", failed_cause, session_id, component, token
FROM work_history
WHERE machine_id = $1
ORDER BY "timestamp", token;
