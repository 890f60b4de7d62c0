-- Leases that their clients name, and transactions that theirs do: what an answer that was lost came to can be asked on any server.

-- Made by the client for each lease before it is claimed, and kept by history. NULL: leased by a worker of schema 5, or by hand.
ALTER TABLE work ADD COLUMN lease_id uuid;
ALTER TABLE work_history ADD COLUMN lease_id uuid;
CREATE INDEX work_session_lease_idx ON work (session_id, lease_id);
-- Workers of schema 5 still write claim_id while they run beside; nobody else reads it.
DROP INDEX work_session_claim_idx;

-- One event of a kind for each lease. An index over all months would need the time in it, so each month has its own; ids begin with
-- the time at which they were made, so they are written where the one before was. Months that nobody writes any more have none.
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT c.relname FROM work_history_partitions() AS p JOIN pg_class AS c ON c.oid = p.partition
        WHERE p.upper IS NULL OR p.upper > now()
    LOOP
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (lease_id, event) WHERE lease_id IS NOT NULL', part.relname || '_lease_key', part.relname);
    END LOOP;
END
$$;

-- As in migration 5, and with the index of each month's leases. Makes the partitions of this month and the next three, as far as they are missing, and returns how many. It runs with the rights of
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
            EXECUTE format('CREATE UNIQUE INDEX %I ON {template}.%I (lease_id, event) WHERE lease_id IS NOT NULL', name || '_lease_key', name);
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

-- What transact(…, idempotency_key=…) has committed: written by that transaction, so it is there if and only if all else of it is.
-- call_id is made for each call: it tells a caller whether the transaction was its own. Forgotten after a week.
CREATE TABLE transaction_key (
    idempotency_key text NOT NULL,
    call_id uuid NOT NULL,
    session_id uuid NOT NULL,
    component text NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT transaction_key_pkey PRIMARY KEY (idempotency_key)
);
CREATE INDEX transaction_key_marked_idx ON transaction_key (marked_at);

-- Who may use leases may use it, from this moment on.
DO $$
DECLARE
    may record;
BEGIN
    FOR may IN
        SELECT a.privilege_type,
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'work'::regclass AND a.grantee <> c.relowner
            AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON transaction_key TO %s', may.privilege_type, may.grantee);
    END LOOP;
END
$$;
