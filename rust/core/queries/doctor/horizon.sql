-- What keeps vacuum from removing dead rows, and has for longer than $1 seconds: transactions that are open, prepared ones that nobody
-- ends, and replication slots, whose age is not known.
SELECT 'transaction' AS kind, a.pid::text AS name, a.usename::text AS owner, a.application_name AS application, a.state,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_stat_activity AS a
WHERE a.pid <> pg_backend_pid() AND a.xact_start < clock_timestamp() - make_interval(secs => $1::float8)
    AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL OR a.state LIKE 'idle in transaction%')
    AND a.backend_type <> 'autovacuum worker'
UNION ALL
SELECT 'prepared transaction', p.gid, p.owner::text, NULL, NULL, extract(epoch FROM clock_timestamp() - p.prepared)::float8
FROM pg_prepared_xacts AS p
WHERE p.database = current_database() AND p.prepared < clock_timestamp() - make_interval(secs => $1::float8)
UNION ALL
SELECT 'replication slot', s.slot_name::text, NULL, NULL, CASE WHEN s.active THEN 'active' ELSE 'inactive' END, NULL
FROM pg_replication_slots AS s
WHERE s.xmin IS NOT NULL AND NOT s.active
ORDER BY seconds DESC NULLS LAST, kind, name
