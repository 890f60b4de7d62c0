-- The fence is a row that this transaction writes, in the place of its connection ($2): until it is over that is in the way of
-- collection's DELETE of the same rows, which has priority HIGH and so ends this transaction ("a transaction with a higher priority
-- aborts one with a lower") before anybody else is let in. Of the session itself only what never changes is read, which has a
-- column family of its own, so that the heartbeat's renewals, in another one, neither wait for this nor abort it. The
-- deadline is the heartbeat's and collection's matter: passing it frees nothing by itself.
INSERT INTO session_fence AS f (session_id, place)
SELECT session_id, $2::bigint FROM sessions WHERE session_id = $1::uuid
ON CONFLICT (session_id, place) DO UPDATE SET used = f.used + 1
RETURNING NULL::int8 AS xid
