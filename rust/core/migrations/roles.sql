-- The four roles of a fleet, with just the rights that each needs on what stands in this schema. Can be run again at any time:
-- after a migration, and when there are new tags. {prefix} is checked before it is written into this text.
DO $$
DECLARE
    suffix text;
    owner text := '{prefix}_owner';
    worker text := '{prefix}_worker';
    operator text := '{prefix}_operator';
    viewer text := '{prefix}_viewer';
    object record;
    columns text;
BEGIN
    -- Whoever waits for a table has others waiting behind it.
    SET LOCAL lock_timeout = '5s';
    FOREACH suffix IN ARRAY ARRAY[owner, worker, operator, viewer] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', suffix);
        EXCEPTION
            -- The second of two databases of one server that make them at once meets the index.
            WHEN duplicate_object OR unique_violation THEN
                IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = suffix AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)) THEN
                    RAISE EXCEPTION 'role "%" may do more than any of bmdb''s should', suffix USING ERRCODE = 'invalid_grant_operation';
                END IF;
        END;
    END LOOP;

    -- What stands here belongs to the owner, so that functions which run with their owner's rights run with no superuser's.
    -- Giving something away takes being of the role that gets it; from PostgreSQL 16 on, to have made it is not enough.
    IF NOT pg_has_role(current_user, owner, 'USAGE') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER', owner);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I, %I, %I', current_schema(), worker, operator, viewer);
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', current_schema(), owner);
    FOR object IN
        SELECT c.oid::regclass AS name
        FROM pg_class AS c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relowner <> owner::regrole
            AND (c.relname = ANY ('{tables}'::text[])
                OR EXISTS (SELECT 1 FROM pg_inherits AS i WHERE i.inhrelid = c.oid AND i.inhparent = 'work_history'::regclass))
        ORDER BY c.relkind = 'p' DESC, c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %I', object.name, owner);
    END LOOP;
    FOR object IN
        SELECT p.oid::regprocedure AS name, p.prosecdef AS definer, p.proowner <> owner::regrole AS strange
        FROM pg_proc AS p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = ANY ('{functions}'::text[])
    LOOP
        IF object.strange THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO %I', object.name, owner);
        END IF;
        IF object.definer THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', object.name);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', object.name, worker);
        END IF;
    END LOOP;
    -- Roles that may lease because somebody granted it by hand go on.
    FOR object IN
        SELECT DISTINCT p.oid::regprocedure AS name,
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_proc AS p, pg_class AS c, aclexplode(c.relacl) AS a
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = ANY ('{functions}'::text[]) AND p.prosecdef
            AND c.oid = 'work'::regclass AND a.privilege_type = 'INSERT'
            AND a.grantee NOT IN (owner::regrole, worker::regrole, operator::regrole, viewer::regrole)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', object.name, object.grantee);
    END LOOP;

    -- From nothing, so that what a role had before and no longer needs is gone.
    FOR object IN
        SELECT c.oid::regclass AS name FROM pg_class AS c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = ANY ('{tables}'::text[])
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %I, %I, %I', object.name, worker, operator, viewer);
        EXECUTE format('GRANT SELECT ON TABLE %s TO %I, %I, %I', object.name, worker, operator, viewer);
    END LOOP;

    -- Tags: any of these tables. Which ones a worker writes is up to its processes; the owner makes the triggers that watch them.
    FOR object IN
        SELECT t.oid::regclass AS name
        FROM pg_class AS t
        JOIN pg_constraint AS pk ON pk.conrelid = t.oid AND pk.contype = 'p' AND array_length(pk.conkey, 1) = 1
        JOIN pg_attribute AS k ON k.attrelid = t.oid AND k.attnum = pk.conkey[1] AND k.attname = 'machine_id'
        JOIN pg_constraint AS fk ON fk.conrelid = t.oid AND fk.contype = 'f' AND fk.conkey = pk.conkey
            AND fk.confrelid = 'machines'::regclass
        WHERE t.relkind IN ('r', 'p') AND t.relname LIKE 'machine\_%' AND t.relnamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO %I', object.name, worker);
        EXECUTE format('GRANT SELECT ON TABLE %s TO %I, %I', object.name, operator, viewer);
        EXECUTE format('GRANT TRIGGER ON TABLE %s TO %I', object.name, owner);
    END LOOP;

    -- Workers. A lock on a row needs UPDATE.
    EXECUTE format('GRANT INSERT, UPDATE ON machines, processes, work_token TO %I', worker);
    EXECUTE format('GRANT INSERT, DELETE ON process_exclusion TO %I', worker);
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON sessions, work, work_attention, work_backoff, work_loss, process_watch, process_eligibility TO %I', worker);
    IF to_regclass('transaction_key') IS NOT NULL THEN
        EXECUTE format('GRANT INSERT, UPDATE, DELETE ON transaction_key TO %I', worker);
    END IF;
    -- Operators keep workers off, and take away what keeps workers off; they lease nothing and end no session.
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON work_hold TO %I', operator);
    EXECUTE format('GRANT DELETE ON work, work_backoff, work_loss TO %I', operator);
    EXECUTE format('GRANT INSERT ON work_attention TO %I', operator);
    -- History is written once, at the time that it has: by whoever does something, and rewritten by nobody but the owner.
    SELECT string_agg(quote_ident(a.attname), ', ') INTO columns
    FROM pg_attribute AS a
    WHERE a.attrelid = 'work_history'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'timestamp';
    EXECUTE format('GRANT INSERT (%s) ON work_history TO %I, %I', columns, worker, operator);
END
$$
