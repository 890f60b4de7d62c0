-- For servers without transaction ids and advisory locks (CockroachDB).
WITH live AS (
    SELECT session_id FROM sessions WHERE session_id = $1 AND session_deadline > clock_timestamp() FOR KEY SHARE
), named AS (
    INSERT INTO transaction_key (idempotency_key, call_id, session_id, component)
    SELECT $2, $3, session_id, $4 FROM live
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING idempotency_key
)
SELECT NULL::int8 AS xid, (SELECT count(*) FROM named) = 1 AS fresh FROM live
