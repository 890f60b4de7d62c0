-- What the statistics say of the tables $1: live and dead rows, when they were last vacuumed, and whether autovacuum may do it.
SELECT s.relname::text AS name, s.n_live_tup AS live, s.n_dead_tup AS dead,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed, pg_table_size(s.relid) AS bytes,
       NOT EXISTS (
           SELECT 1 FROM unnest(c.reloptions) AS o (setting) WHERE o.setting IN ('autovacuum_enabled=false', 'autovacuum_enabled=off')
       ) AS automatic
FROM pg_stat_user_tables AS s
JOIN pg_class AS c ON c.oid = s.relid
WHERE s.relname = ANY ($1::text[]) AND pg_table_is_visible(s.relid)
ORDER BY s.n_dead_tup DESC, s.relname
