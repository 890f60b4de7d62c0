-- As process/exclude.sql: texts are compared byte by byte, and there is no collation "C" to name.
INSERT INTO process_exclusion (process, excluded)
SELECT $1::text, others.name FROM unnest($2::text[]) AS others (name) ORDER BY others.name
ON CONFLICT (process, excluded) DO NOTHING
