-- Statements that the driver has prepared by itself, to look up types, under names that other clients of its kind use too.
SELECT name
FROM pg_prepared_statements
WHERE NOT from_sql AND name ~ '^s[0-9]+$'
    AND (statement LIKE 'SELECT t.typname, t.typtype,%' OR statement LIKE 'SELECT enumlabel%' OR statement LIKE 'SELECT attname, atttypid%')
