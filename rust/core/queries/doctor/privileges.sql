-- What the role may not do that a worker does: each of the privileges $2 on each of the tables $1, pair by pair, and reading every
-- tag. A table that is not there is the schema's matter, not the role's.
WITH needed AS (
    SELECT to_regclass(quote_ident(u.name)) AS relation, u.name, u.privilege
    FROM unnest($1::text[], $2::text[]) AS u (name, privilege)
    UNION ALL
    SELECT t.oid::regclass, t.relname::text, 'SELECT'
    FROM pg_class AS t
    JOIN pg_constraint AS pk ON pk.conrelid = t.oid AND pk.contype = 'p' AND array_length(pk.conkey, 1) = 1
    JOIN pg_attribute AS k ON k.attrelid = t.oid AND k.attnum = pk.conkey[1] AND k.attname = 'machine_id'
    JOIN pg_constraint AS fk ON fk.conrelid = t.oid AND fk.contype = 'f' AND fk.conkey = pk.conkey
        AND fk.confrelid = to_regclass('machines')
    WHERE t.relkind IN ('r', 'p') AND t.relname LIKE 'machine\_%' AND pg_table_is_visible(t.oid)
)
SELECT name, array_agg(privilege ORDER BY privilege) AS missing
FROM needed
-- History may be added to by all columns but its time (migrations/roles.sql), so that a right to columns will do.
WHERE relation IS NOT NULL AND NOT CASE privilege
    WHEN 'INSERT' THEN has_any_column_privilege(relation, privilege)
    ELSE has_table_privilege(relation, privilege)
END
GROUP BY name
ORDER BY name
