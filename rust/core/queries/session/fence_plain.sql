-- For servers without transaction ids and advisory locks (CockroachDB).
SELECT NULL::int8 AS xid FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp() FOR KEY SHARE
