-- What gives the id of a transaction a meaning, asked within that transaction where a pooler may have led it to another server
-- than the last one: see server/identity.sql.
SELECT
    (SELECT (extract(epoch FROM stats_reset) * 1000000)::bigint FROM pg_stat_bgwriter) AS incarnation,
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline
