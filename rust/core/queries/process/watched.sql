-- A row for each watcher of these processes: whether a trigger that is there and enabled answers for every change
-- it watches. Only then may it rely on work_attention between two sweeps. PostgreSQL only.
SELECT w.process, w.watcher, bool_and(EXISTS (
    SELECT 1 FROM pg_trigger AS g JOIN pg_class AS t ON t.oid = g.tgrelid
    WHERE t.relname = w.tag::name AND g.tgname = ('bmdb_attend_' || lower(w.event))::name AND g.tgenabled IN ('O', 'A')
)) AS watched, bool_or(w.seen < clock_timestamp() - interval '1 hour') AS unseen
FROM process_watch AS w
WHERE w.process = ANY($1::text[])
GROUP BY w.process, w.watcher
