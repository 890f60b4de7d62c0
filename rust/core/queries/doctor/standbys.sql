-- The standbys that follow this server, by how they are waited for; what only a monitoring role may see is NULL.
SELECT coalesce(sync_state, 'unknown') AS state, count(*) AS count FROM pg_stat_replication GROUP BY 1 ORDER BY 1
