DROP TABLE transaction_key;
-- Makes the partitions of this month and the next three, as far as they are missing, and returns how many. It runs with the rights of
-- whoever migrated, since collection calls it and workers may not make tables. It waits for no lock for long: then somebody
-- else does it an hour later, and months before it matters.
DO $make$
BEGIN
    EXECUTE replace(replace($text$
CREATE OR REPLACE FUNCTION {schema}.work_history_ahead() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '100ms' AS $$
DECLARE
    month timestamptz;
    made int := 0;
    name text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('{schema}.work_history_ahead', 0)) THEN
        RETURN 0;
    END IF;
    FOR month IN
        SELECT m FROM generate_series(date_trunc('month', now()), date_trunc('month', now()) + interval '3 months', interval '1 month') AS m
        WHERE NOT EXISTS (
            SELECT 1 FROM {schema}.work_history_partitions() AS p
            WHERE p.upper IS NOT NULL AND (p.lower IS NULL OR p.lower <= m) AND m < p.upper
        )
        ORDER BY m
    LOOP
        name := 'work_history_' || to_char(month, 'YYYY_MM');
        BEGIN
            EXECUTE format(
                'CREATE TABLE {template}.%I (LIKE {template}.work_history INCLUDING DEFAULTS) WITH (autovacuum_vacuum_insert_scale_factor = 0, '
                'autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0)', name);
            -- What came while there was no partition for it moves.
            LOCK TABLE {schema}.work_history_other IN ACCESS EXCLUSIVE MODE;
            EXECUTE format(
                'WITH moved AS (DELETE FROM {template}.work_history_other WHERE "timestamp" >= %L AND "timestamp" < %L RETURNING *) '
                'INSERT INTO {template}.%I SELECT * FROM moved', month, month + interval '1 month', name);
            EXECUTE format(
                'ALTER TABLE {template}.work_history ATTACH PARTITION {template}.%I FOR VALUES FROM (%L) TO (%L)',
                name, month, month + interval '1 month');
            made := made + 1;
        EXCEPTION
            WHEN lock_not_available OR duplicate_table THEN
                NULL;
        END;
    END LOOP;
    RETURN made;
END
$$
    $text$, '{template}', replace(quote_ident(current_schema()), '%', '%%')), '{schema}', quote_ident(current_schema()));
END
$make$;

-- With the indexes of the months.
ALTER TABLE work_history DROP COLUMN lease_id;
CREATE INDEX work_session_claim_idx ON work (session_id, claim_id);
DROP INDEX work_session_lease_idx;
ALTER TABLE work DROP COLUMN lease_id;
