-- Statistics are discarded in crash recovery and kept otherwise, so the time of their reset tells a server that has
-- crashed since. The first eight hexadecimal digits of a WAL file's name are the timeline; a standby has none to give.
SELECT
    (SELECT (extract(epoch FROM stats_reset) * 1000000)::bigint FROM pg_stat_bgwriter) AS incarnation,
    pg_backend_pid() AS pid,
    (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())) AS started,
    current_setting('server_version_num')::int AS version,
    pg_is_in_recovery() AS standby,
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline
