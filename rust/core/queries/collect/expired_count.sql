SELECT count(*) AS expired FROM sessions WHERE session_deadline < clock_timestamp()
