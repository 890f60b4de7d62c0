-- What operators see of processes without the workers' code, and a history that can be kept short.

-- What workers say of a process besides what the database enforces. Seconds as given to Backoff.
ALTER TABLE processes
    ADD COLUMN backoff_initial double precision,
    ADD COLUMN backoff_maximum double precision,
    ADD COLUMN backoff_exponent double precision,
    ADD COLUMN backoff_jitter double precision,
    ADD COLUMN max_hold double precision,
    ADD COLUMN version text,
    ADD COLUMN process_seen_at timestamptz;

-- Which machines need a process, in SQL that says all by itself: parameters are written into it. A worker says once a minute that
-- it asks.
CREATE TABLE process_eligibility (
    process text NOT NULL,
    fingerprint text NOT NULL,
    having_tags text[] NOT NULL,
    lacking_tags text[] NOT NULL,
    condition text,
    order_by text,
    query text,
    version text NOT NULL,
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT process_eligibility_pkey PRIMARY KEY (process, fingerprint)
);

-- History by months (UTC), so that an old month goes at once. What there is becomes the first partition, however old it is.
-- Views that read history read the new table then.
DO $$
DECLARE
    definitions text[];
    view record;
BEGIN
    FOR view IN
        SELECT DISTINCT v.oid, format('%I.%I', n.nspname, v.relname) AS name, v.relkind, v.reloptions, pg_get_viewdef(v.oid) AS definition
        FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS v ON v.oid = r.ev_class
        JOIN pg_namespace AS n ON n.oid = v.relnamespace
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = 'work_history'::regclass AND v.relkind IN ('v', 'm')
    LOOP
        IF view.relkind = 'm' THEN
            RAISE EXCEPTION 'the materialized view % reads work_history: drop it, and make it anew after the migration', view.name;
        END IF;
        definitions := definitions || format('CREATE OR REPLACE VIEW %s%s AS %s', view.name,
            coalesce(' WITH (' || array_to_string(view.reloptions, ', ') || ')', ''), view.definition);
    END LOOP;
    ALTER TABLE work_history RENAME TO work_history_before;
    ALTER INDEX work_history_machine_idx RENAME TO work_history_before_machine_idx;
    CREATE TABLE work_history (
        machine_id uuid NOT NULL,
        process text NOT NULL,
        event text NOT NULL,
        "timestamp" timestamptz NOT NULL DEFAULT clock_timestamp(),
        failed_cause text,
        session_id uuid,
        component text,
        token bigint
    ) PARTITION BY RANGE ("timestamp");
    FOR i IN 1 .. coalesce(cardinality(definitions), 0) LOOP
        EXECUTE definitions[i];
    END LOOP;
END
$$;
CREATE INDEX work_history_machine_idx ON work_history (machine_id, "timestamp");
-- For the pages of sessions, and for what happened in the last hour.
CREATE INDEX work_history_session_idx ON work_history (session_id, "timestamp");
CREATE INDEX work_history_timestamp_idx ON work_history USING brin ("timestamp") WITH (pages_per_range = 32, autosummarize = on);
-- For what no month is there for: nothing must keep an end of work from being written.
CREATE TABLE work_history_other PARTITION OF work_history DEFAULT WITH (autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0);

-- The partitions with their bounds, NULL for none: of the default one both, of the first one the lower.
DO $make$
BEGIN
    EXECUTE replace($text$
CREATE FUNCTION {schema}.work_history_partitions() RETURNS TABLE (partition regclass, lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
    SELECT c.oid::regclass,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \(''([^'']+)''')::timestamptz,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''')::timestamptz
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = '{schema}.work_history'::regclass AND c.relpartbound IS NOT NULL
$$
    $text$, '{schema}', quote_ident(current_schema()));
END
$make$;

-- Makes the partitions of this month and the next three, as far as they are missing, and returns how many. It runs with the rights of
-- whoever migrated, since collection calls it and workers may not make tables. It waits for no lock for long: then somebody
-- else does it an hour later, and months before it matters.
DO $make$
BEGIN
    EXECUTE replace(replace($text$
CREATE FUNCTION {schema}.work_history_ahead() RETURNS int
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

-- Removes history from before a time: deletes up to `most` rows, or drops a partition that is wholly older, where the caller owns it; then
-- it stops, since that locks history until the end of the transaction. With the caller's rights.
DO $make$
BEGIN
    EXECUTE replace($text$
CREATE FUNCTION {schema}.work_history_prune(older timestamptz, most bigint, OUT removed bigint, OUT dropped text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    part record;
    gone bigint;
BEGIN
    removed := 0;
    dropped := '{}';
    FOR part IN
        SELECT p.partition, c.relname::text AS name, p.upper <= older AND pg_has_role(c.relowner, 'USAGE') AS whole
        FROM {schema}.work_history_partitions() AS p JOIN pg_class AS c ON c.oid = p.partition
        WHERE p.lower IS NULL OR p.lower < older
        ORDER BY p.lower NULLS FIRST, p.upper
    LOOP
        IF part.whole THEN
            BEGIN
                EXECUTE format('SELECT count(*) FROM %s', part.partition) INTO gone;
                EXECUTE format('DROP TABLE %s', part.partition);
                removed := removed + gone;
                dropped := dropped || part.name;
                RETURN;
            EXCEPTION
                WHEN lock_not_available OR dependent_objects_still_exist THEN
                    NULL;  -- Somebody looks at history or writes it, or a view needs this part: its rows go one by one.
            END;
        END IF;
        DELETE FROM {schema}.work_history AS h
        WHERE h.tableoid = part.partition AND h."timestamp" < older AND h.ctid = ANY (ARRAY(
            SELECT o.ctid FROM {schema}.work_history AS o
            WHERE o.tableoid = part.partition AND o."timestamp" < older
            LIMIT most
        ));
        GET DIAGNOSTICS gone = ROW_COUNT;
        removed := removed + gone;
        most := most - gone;
        EXIT WHEN most <= 0;
    END LOOP;
END
$$
    $text$, '{schema}', quote_ident(current_schema()));
END
$make$;

DO $$
DECLARE
    may record;
    bound timestamptz;
BEGIN
    -- Who may use history may use it still; who may use leases needs the new table too, from this moment on.
    FOR may IN
        SELECT c.relname, a.privilege_type,
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid IN ('work'::regclass, 'work_history_before'::regclass) AND a.grantee <> c.relowner
            AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON %I TO %s', may.privilege_type,
            CASE may.relname WHEN 'work' THEN 'process_eligibility' ELSE 'work_history' END, may.grantee);
    END LOOP;
    IF EXISTS (SELECT 1 FROM work_history_before) THEN
        SELECT date_trunc('month', greatest(max("timestamp"), now()) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' INTO bound
        FROM work_history_before;
        bound := (bound AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        EXECUTE format('ALTER TABLE work_history ATTACH PARTITION work_history_before FOR VALUES FROM (MINVALUE) TO (%L)', bound);
    ELSE
        DROP TABLE work_history_before;
    END IF;
    PERFORM work_history_ahead();
END
$$;
