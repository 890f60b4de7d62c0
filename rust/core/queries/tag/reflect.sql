SELECT
    t.relname::text AS table_name,
    a.attname::text AS field,
    format_type(a.atttypid, a.atttypmod) AS field_type,
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required
FROM pg_class AS t
JOIN pg_constraint AS pk ON pk.conrelid = t.oid AND pk.contype = 'p' AND array_length(pk.conkey, 1) = 1
JOIN pg_attribute AS k ON k.attrelid = t.oid AND k.attnum = pk.conkey[1] AND k.attname = 'machine_id'
JOIN pg_constraint AS fk ON fk.conrelid = t.oid AND fk.contype = 'f' AND fk.conkey = pk.conkey
    AND fk.confrelid = to_regclass('machines')
LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'machine_id'
WHERE t.relkind IN ('r', 'p') AND t.relname LIKE 'machine\_%' AND pg_table_is_visible(t.oid)
ORDER BY t.relname, a.attnum
