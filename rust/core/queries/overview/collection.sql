-- What collection has not got round to: expired sessions, when the first of them expired, and the leases that they keep.
SELECT count(*) AS sessions, min(session_deadline) AS oldest,
       coalesce(sum((SELECT count(*) FROM work WHERE work.session_id = sessions.session_id)), 0)::bigint AS leases
FROM sessions
WHERE session_deadline <= clock_timestamp()
