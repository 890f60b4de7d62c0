-- Many leases in one statement, machines that are looked at before all others, holds, and tables that stay small.

-- Made by the client for each claim of several machines: what a claim whose COMMIT was not answered has got is asked by it.
ALTER TABLE work ADD COLUMN claim_id uuid;
CREATE INDEX work_session_claim_idx ON work (session_id, claim_id);
DROP INDEX work_session_idx;

-- Machines that a process should look at from `due` on: a hint and no truth, so there is no key and no foreign key, the
-- same one may come twice, and whoever claims deletes what it has looked at.
CREATE TABLE work_attention (
    process text NOT NULL,
    watcher text NOT NULL,
    machine_id uuid NOT NULL,
    due timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX work_attention_due_idx ON work_attention (process, watcher, due);

-- Which changes of which tags may give a process work. The watcher is the eligibility that asks, by its fingerprint: workers of one
-- process may have different ones, and each judges its own notes. What has no rows here gets no notes: it looks by itself.
-- A worker says every hour that it is there (queries/process/watching.sql); who has not for a day makes room for others.
CREATE TABLE process_watch (
    process text NOT NULL,
    watcher text NOT NULL,
    tag text NOT NULL,
    event text NOT NULL,
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT process_watch_pkey PRIMARY KEY (process, watcher, tag, event),
    CONSTRAINT process_watch_event_check CHECK (event IN ('INSERT', 'UPDATE', 'DELETE'))
);
CREATE INDEX process_watch_tag_idx ON process_watch (tag, event, process, watcher);

-- A person keeps workers away from a machine: all of them ('' as process) or those of one process; for ever, or until then.
CREATE TABLE work_hold (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    owner text NOT NULL,
    reason text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz,
    CONSTRAINT work_hold_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_hold_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);

-- A statement that turns out to have been judged on too old a snapshot ends by this, and is run again.
CREATE FUNCTION work_again() RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what the statement saw has changed meanwhile' USING ERRCODE = 'serialization_failure';
END
$$;

-- As before, but one look for each statement in place of one for each row, since a claim may insert hundreds. By now the
-- leases are inserted, so that two rivals at the same moment still meet in work_token, and the later one sees the other's.
CREATE OR REPLACE FUNCTION work_exclude() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    clash record;
BEGIN
    -- What is held already stays held, whatever else of it changes.
    IF TG_OP = 'UPDATE' THEN
        IF NOT EXISTS (SELECT machine_id, process FROM leased EXCEPT SELECT machine_id, process FROM former) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF NOT EXISTS (
        SELECT 1 FROM process_exclusion AS p, leased AS l WHERE l.process = p.process OR l.process = p.excluded
    ) THEN
        RETURN NULL;
    END IF;
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT touched.machine_id, touched.name, 0
    FROM (
        SELECT DISTINCT l.machine_id, both_of.name
        FROM leased AS l
        JOIN process_exclusion AS p ON l.process IN (p.process, p.excluded),
            unnest(ARRAY[p.process, p.excluded]) AS both_of (name)
    ) AS touched
    ORDER BY touched.machine_id, touched.name COLLATE "C"
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token WHERE t.xmin <> pg_current_xact_id()::xid;
    SELECT l.machine_id, l.process, w.process AS holder INTO clash
    FROM leased AS l
    JOIN process_exclusion AS p ON l.process IN (p.process, p.excluded)
    JOIN work AS w ON w.machine_id = l.machine_id
        AND w.process = CASE l.process WHEN p.process THEN p.excluded ELSE p.process END
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'machine % is being worked on under process "%", which excludes "%"',
            clash.machine_id, clash.holder, clash.process
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'work_exclusion', TABLE = 'work';
    END IF;
    RETURN NULL;
END
$$;
DROP TRIGGER work_exclusion ON work;
CREATE TRIGGER work_exclusion AFTER INSERT ON work
REFERENCING NEW TABLE AS leased FOR EACH STATEMENT EXECUTE FUNCTION work_exclude();
CREATE TRIGGER work_exclusion_moved AFTER UPDATE ON work
REFERENCING OLD TABLE AS former NEW TABLE AS leased FOR EACH STATEMENT EXECUTE FUNCTION work_exclude();

-- What notes changed machines. It runs with the rights of whoever migrated, since whoever changes tags need not be allowed
-- anything here; its names are written out, so that nobody's search_path leads it astray.
DO $make$
BEGIN
    EXECUTE replace($text$
CREATE FUNCTION {schema}.work_attend() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {schema}.work_attention (process, watcher, machine_id)
    SELECT w.process, w.watcher, c.machine_id
    FROM {schema}.process_watch AS w, changed AS c
    WHERE w.tag = TG_TABLE_NAME AND w.event = TG_OP;
    IF FOUND THEN
        PERFORM pg_notify('bmdb_work', w.process)
        FROM (SELECT DISTINCT process, tag, event FROM {schema}.process_watch) AS w WHERE w.tag = TG_TABLE_NAME AND w.event = TG_OP;
    END IF;
    RETURN NULL;
END
$$
    $text$, '{schema}', quote_ident(current_schema()));
END
$make$;

-- Stores which changes a watcher of a process watches, in place of what it watched before (with `alone`, of what all of them did),
-- and makes the triggers that are missing. Answers with those that it could not make: the process has to look by itself then. It takes no lock on a tag for longer
-- than the transaction around it, and waits for none for long, since whoever writes the tag waits behind it.
DO $make$
BEGIN
    EXECUTE replace($text$
CREATE FUNCTION {schema}.work_watch(tags text[], events text[], process text, watcher text, alone boolean)
RETURNS TABLE (unwatched text, change text, reason text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    caller text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
    wanted record;
    enabled "char";
    trigger_name text;
    out_of_reach regclass;
BEGIN
    IF NOT has_table_privilege(caller, '{schema}.work', 'INSERT') THEN
        RAISE EXCEPTION 'role "%" may not lease, so it may not watch', caller USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM {schema}.process_watch AS w
    WHERE w.process = work_watch.process AND (work_watch.alone OR w.watcher = work_watch.watcher) AND NOT EXISTS (
        SELECT 1 FROM unnest(work_watch.tags, work_watch.events) AS u (tag, event)
        WHERE u.tag = w.tag AND u.event = w.event AND w.watcher = work_watch.watcher
    );
    WITH gone AS (
        DELETE FROM {schema}.process_watch AS w
        WHERE w.process = work_watch.process AND w.watcher <> work_watch.watcher AND w.seen < clock_timestamp() - interval '1 day'
        RETURNING w.watcher
    )
    DELETE FROM {schema}.work_attention AS a
    WHERE a.process = work_watch.process AND a.watcher <> work_watch.watcher
        AND (work_watch.alone OR a.watcher IN (SELECT gone.watcher FROM gone));
    -- Each of them is a note for each change: whoever makes an eligibility anew for every call gets none.
    IF 32 <= (
        SELECT count(DISTINCT w.watcher) FROM {schema}.process_watch AS w
        WHERE w.process = work_watch.process AND w.watcher <> work_watch.watcher
    ) THEN
        RETURN QUERY SELECT u.tag, u.event, 'the process is watched by 32 eligibilities already'
        FROM unnest(work_watch.tags, work_watch.events) AS u (tag, event);
        RETURN;
    END IF;
    INSERT INTO {schema}.process_watch (process, watcher, tag, event)
    SELECT DISTINCT work_watch.process, work_watch.watcher, u.tag, u.event
    FROM unnest(work_watch.tags, work_watch.events) AS u (tag, event)
    ON CONFLICT ON CONSTRAINT process_watch_pkey DO UPDATE SET seen = excluded.seen;
    FOR wanted IN
        SELECT w.tag, w.event, t.oid::regclass AS relation
        FROM {schema}.process_watch AS w
        -- As queries/tag/reflect.sql defines a tag.
        LEFT JOIN (
            pg_class AS t
            JOIN pg_constraint AS pk ON pk.conrelid = t.oid AND pk.contype = 'p' AND array_length(pk.conkey, 1) = 1
            JOIN pg_attribute AS k
                ON k.attrelid = t.oid AND k.attnum = pk.conkey[1] AND k.attname = 'machine_id'
            JOIN pg_constraint AS fk ON fk.conrelid = t.oid AND fk.contype = 'f' AND fk.conkey = pk.conkey
                AND fk.confrelid = '{schema}.machines'::regclass
        ) ON t.relkind IN ('r', 'p') AND t.relname = w.tag::name AND t.relname LIKE 'machine\_%'
        WHERE w.process = work_watch.process AND w.watcher = work_watch.watcher
        ORDER BY w.tag, t.oid, w.event
    LOOP
        unwatched := wanted.tag;
        change := wanted.event;
        IF wanted.relation IS NULL THEN
            reason := 'there is no such tag';
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF wanted.relation = out_of_reach THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        trigger_name := 'bmdb_attend_' || lower(wanted.event);
        SELECT g.tgenabled INTO enabled FROM pg_trigger AS g
        WHERE g.tgrelid = wanted.relation AND g.tgname = trigger_name::name;
        IF NOT FOUND THEN
            BEGIN
                EXECUTE format(
                    'CREATE TRIGGER %I AFTER %s ON %s REFERENCING %s TABLE AS changed FOR EACH STATEMENT '
                    'EXECUTE FUNCTION {schema}.work_attend()',
                    trigger_name, wanted.event, wanted.relation, CASE wanted.event WHEN 'DELETE' THEN 'OLD' ELSE 'NEW' END);
            EXCEPTION
                WHEN duplicate_object THEN
                    NULL;  -- Somebody else was as quick.
                WHEN lock_not_available OR insufficient_privilege THEN
                    reason := SQLERRM;
                    out_of_reach := wanted.relation;
                    RETURN NEXT;
            END;
        ELSIF enabled NOT IN ('O', 'A') THEN
            reason := format('its trigger %I is disabled', trigger_name);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$
    $text$, '{schema}', quote_ident(current_schema()));
END
$make$;

-- A renewal has to find room in its row's own page: then it touches no index (HOT), and the room is used again by the
-- renewal after the next without a vacuum. At 40 the page has room for one more version of each of its rows and a half.
ALTER TABLE sessions SET (fillfactor = 40);
-- Each pair's row is updated by each of its claims, ends and losses, but seldom those of a whole page at once.
ALTER TABLE work_token SET (fillfactor = 80);
ALTER TABLE work_backoff SET (fillfactor = 80);
ALTER TABLE work_loss SET (fillfactor = 80);

-- These tables are small beside what passes through them. A share of their rows as the measure lets dead ones pile up to a
-- fifth of the fleet, which every scan then steps over; so a fixed number is the measure, and a vacuum does not rest.
ALTER TABLE sessions SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE work SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE work_attention SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE work_backoff SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE work_loss SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE work_token SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE machines SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000);
-- History only grows. Frozen soon after it was written, while its pages are still in memory, none of it is ever read again
-- to be frozen, however old it gets.
ALTER TABLE work_history SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_freeze_min_age = 0);

-- Who may use leases needs these tables too, from this moment on: workers of the version before run on meanwhile.
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
        EXECUTE format('GRANT %s ON work_attention, process_watch, work_hold TO %s', may.privilege_type, may.grantee);
    END LOOP;
END
$$;
