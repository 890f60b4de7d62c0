-- A row for each of these processes that watches tags: whether a trigger that is there and enabled answers for every change
-- it watches. Only then may it rely on work_attention between two sweeps. PostgreSQL only.
SELECT w.process, bool_and(EXISTS (
    SELECT 1 FROM pg_trigger AS g JOIN pg_class AS t ON t.oid = g.tgrelid
    WHERE t.relname = w.tag::name AND g.tgname = ('bmdb_attend_' || lower(w.event))::name AND g.tgenabled IN ('O', 'A')
)) AS watched
FROM process_watch AS w
WHERE w.process = ANY($1::text[])
GROUP BY w.process
