-- Ends the backends that are still inside a fenced transaction although its session's deadline has passed by more than
-- the grace given: their holder is stopped or cut off, and what they hold cannot be committed in time any more.
SELECT count(*) FILTER (WHERE pg_terminate_backend(l.pid)) AS ended
FROM sessions AS s
JOIN pg_locks AS l
    ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ShareLock'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(s.session_id::text, 7226)
JOIN pg_stat_activity AS a ON a.pid = l.pid AND a.state IN ('idle in transaction', 'idle in transaction (aborted)')
WHERE s.session_deadline < clock_timestamp() - $1::bigint * interval '1 millisecond'
