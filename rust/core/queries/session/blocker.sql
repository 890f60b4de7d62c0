-- Who keeps the backend $1 waiting.
SELECT a.pid, coalesce(a.application_name, '') AS application_name, coalesce(a.usename::text, '') AS username,
    coalesce(a.state, '') AS state
FROM unnest(pg_blocking_pids($1::int)) AS b (pid)
JOIN pg_stat_activity AS a ON a.pid = b.pid
LIMIT 1
