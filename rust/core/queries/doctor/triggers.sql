-- The library's triggers, and whether they fire for its workers: on leases, and on tags that a process watches.
SELECT t.relname::text AS table_name, g.tgname::text AS name, g.tgenabled IN ('O', 'A') AS enabled
FROM pg_trigger AS g
JOIN pg_class AS t ON t.oid = g.tgrelid
WHERE NOT g.tgisinternal AND (g.tgname LIKE 'work\_exclusion%' OR g.tgname LIKE 'bmdb\_attend\_%')
    AND pg_table_is_visible(t.oid)
ORDER BY t.relname, g.tgname
