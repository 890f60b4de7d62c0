-- The session first, then its work: the order of collection, so the two cannot deadlock.
SELECT session_id FROM sessions WHERE session_id = $1 FOR UPDATE
