-- Many leases in one statement, machines that are looked at before all others, holds, and tables that stay small.

-- Made by the client for each claim of several machines: what a claim whose COMMIT was not answered has got is asked by it.
ALTER TABLE work ADD COLUMN claim_id uuid;
CREATE INDEX work_session_claim_idx ON work (session_id, claim_id);
DROP INDEX work_session_idx;

-- Machines that a process should look at from `due` on: a hint and no truth, so there is no key and no foreign key, the
-- same one may come twice, and whoever claims deletes what it has looked at.
CREATE TABLE work_attention (
    process text NOT NULL,
    machine_id uuid NOT NULL,
    due timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX work_attention_due_idx ON work_attention (process, due);

-- Which changes of which tags may give a process work. A process without rows here gets no attention: it looks by itself.
CREATE TABLE process_watch (
    process text NOT NULL,
    tag text NOT NULL,
    event text NOT NULL,
    CONSTRAINT process_watch_pkey PRIMARY KEY (process, tag, event),
    CONSTRAINT process_watch_event_check CHECK (event IN ('INSERT', 'UPDATE', 'DELETE'))
);
CREATE INDEX process_watch_tag_idx ON process_watch (tag, event, process);

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
