-- Ends the transaction $1 if it only waits for what its client may have sent and nobody has received. Its client has
-- given that connection up, so nothing is lost; and it would keep its locks for as long as the network keeps quiet.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) AS ended
FROM pg_stat_activity
WHERE backend_xid = ($1::text::xid8)::xid AND state LIKE 'idle in transaction%'
    AND state_change < clock_timestamp() - interval '1 second'
