-- Nothing is locked: who renews a session meanwhile, or collects it too, makes this transaction be done again.
SELECT session_id FROM sessions
WHERE session_deadline < clock_timestamp()
ORDER BY session_id
LIMIT $1
