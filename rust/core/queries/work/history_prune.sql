-- Removes history from more than $1 seconds ago, up to $2 rows of it besides whole partitions. PostgreSQL only.
SELECT removed, dropped FROM work_history_prune(clock_timestamp() - make_interval(secs => $1::double precision), $2::bigint)
