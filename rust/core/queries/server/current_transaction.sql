-- The id of the transaction that is open; NULL for one that has none yet.
SELECT pg_current_xact_id_if_assigned()::text::bigint AS xid
