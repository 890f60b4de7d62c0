-- Adds exclusions to those that the process has declared.
INSERT INTO process_exclusion (process, excluded)
SELECT $1::text, others.name FROM unnest($2::text[]) AS others (name) ORDER BY others.name COLLATE "C"
ON CONFLICT (process, excluded) DO NOTHING
