-- Every index of the tables $1, and whether it can be used.
SELECT t.relname::text AS table_name, i.relname::text AS name, x.indisvalid AND x.indisready AS valid
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_class AS t ON t.oid = x.indrelid
WHERE t.relname = ANY ($1::text[]) AND pg_table_is_visible(t.oid)
ORDER BY t.relname, i.relname
