-- As session/fence_keyed.sql, with the fence of session/fence.cockroachdb.sql; $5 is the place of the connection.
WITH live AS (
    INSERT INTO session_fence AS f (session_id, place)
    SELECT session_id, $5::bigint FROM sessions WHERE session_id = $1::uuid
    ON CONFLICT (session_id, place) DO UPDATE SET used = f.used + 1
    RETURNING session_id
), named AS (
    INSERT INTO transaction_key (idempotency_key, call_id, session_id, component)
    SELECT $2::text, $3::uuid, session_id, $4::text FROM live
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING 1
)
SELECT NULL::int8 AS xid, (SELECT count(*) FROM named) = 1 AS fresh FROM live
