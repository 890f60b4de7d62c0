-- As session/fence.sql, for a transaction that is to be committed once only: $2 names it, $3 this call of it. Whoever comes with the
-- same name meanwhile waits here until the first one has ended; when it is committed, nothing is `fresh` for the second.
WITH live AS MATERIALIZED (
    SELECT session_id, pg_advisory_xact_lock_shared(hashtextextended(session_id::text, 7226)) AS marked
    FROM sessions
    WHERE session_id = $1 AND session_deadline > clock_timestamp()
    FOR KEY SHARE
), named AS (
    INSERT INTO transaction_key (idempotency_key, call_id, session_id, component)
    SELECT $2, $3, session_id, $4 FROM live
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING 1
)
SELECT pg_current_xact_id()::text::bigint AS xid, (SELECT count(*) FROM named) = 1 AS fresh, marked FROM live
