-- Notes, at COMMIT, who writes to the tables watched: the session whose fence the transaction has (its mark, see
-- queries/session/fence.sql, or an end of work that it has written), and whether that session holds the machine of the row.
DO $prepare$
BEGIN
    CREATE SCHEMA IF NOT EXISTS bmdb_testing;
    CREATE TABLE IF NOT EXISTS bmdb_testing.writes (
        position bigint GENERATED ALWAYS AS IDENTITY,
        written_at timestamptz NOT NULL,
        relation text NOT NULL,
        operation text NOT NULL,
        machine_id uuid,
        session_id uuid,
        entitled boolean NOT NULL,
        application text NOT NULL,
        backend int NOT NULL
    );
    -- What the one who writes may read or write does not matter.
    CREATE OR REPLACE FUNCTION bmdb_testing.note() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $note$
    DECLARE
        machine uuid := (CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END ->> 'machine_id')::uuid;
        writer uuid;
        ended uuid;
    BEGIN
        SELECT s.session_id INTO writer
        FROM sessions AS s
        JOIN pg_locks AS l ON ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended(s.session_id::text, 7226)
        WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid = pg_backend_pid() AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        LIMIT 1;
        SELECT h.session_id INTO ended
        FROM work_history AS h
        WHERE h.machine_id = machine AND h.xmin = pg_current_xact_id()::xid AND h.event IN ('Finished', 'Failed', 'Canceled')
        LIMIT 1;
        INSERT INTO bmdb_testing.writes (written_at, relation, operation, machine_id, session_id, entitled, application, backend)
        VALUES (
            clock_timestamp(), TG_TABLE_NAME, TG_OP, machine, coalesce(writer, ended),
            CASE WHEN machine IS NULL THEN writer IS NOT NULL ELSE ended IS NOT NULL OR EXISTS (
                SELECT 1 FROM work AS w WHERE w.machine_id = machine AND w.session_id = writer
            ) END,
            current_setting('application_name'), pg_backend_pid()
        );
        RETURN NULL;
    END
    $note$;
    -- These tables, or if none is named all that have a machine_id and are not bmdb's own records of leases.
    CREATE OR REPLACE FUNCTION bmdb_testing.watch(tables text[]) RETURNS bigint
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $watch$
    DECLARE
        wanted regclass[] := CASE WHEN tables IS NOT NULL THEN (SELECT array_agg(t::regclass) FROM unnest(tables) AS t) ELSE (
            SELECT array_agg(c.oid::regclass)
            FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                AND a.attname = 'machine_id' AND a.atttypid = 'uuid'::regtype
                AND c.relname <> 'machines' AND c.relname !~ '^work(_|$)'
        ) END;
        each regclass;
    BEGIN
        FOREACH each IN ARRAY coalesce(wanted, '{}') LOOP
            EXECUTE format('DROP TRIGGER IF EXISTS bmdb_testing ON %s', each);
            EXECUTE format(
                'CREATE CONSTRAINT TRIGGER bmdb_testing AFTER INSERT OR UPDATE OR DELETE ON %s'
                ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bmdb_testing.note()', each
            );
        END LOOP;
        RETURN (SELECT coalesce(max(position), 0) FROM bmdb_testing.writes);
    END
    $watch$;
END
$prepare$
