-- KEY SHARE lets the heartbeat's update pass and stops collection's delete until this transaction ends.
-- The shared advisory lock names this backend in pg_locks, so that collection can end it once the session is past its
-- deadline: a holder stopped inside its transaction must not keep the machine. The id answers for a lost COMMIT.
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    pg_advisory_xact_lock_shared(hashtextextended(session_id::text, 7226)) AS marked
FROM sessions
WHERE session_id = $1 AND session_deadline > clock_timestamp()
FOR KEY SHARE
