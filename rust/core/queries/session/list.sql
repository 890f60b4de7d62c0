-- One page of sessions, live and expired, each with the number of its leases; NULL asks for the first page.
SELECT session_id, session_component_name, session_runtime_info, session_created_at, session_interval_seconds,
       session_deadline, session_deadline > clock_timestamp() AS session_live,
       (SELECT count(*) FROM work WHERE work.session_id = sessions.session_id) AS session_leases
FROM sessions
WHERE session_id >= COALESCE($1::uuid, '00000000-0000-0000-0000-000000000000')
  AND session_id IS DISTINCT FROM $1::uuid
ORDER BY session_id
LIMIT $2;
