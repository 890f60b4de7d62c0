-- What is known of processes beyond their names, and the losses of their holders.

-- The settings that every worker's collection applies. NULL: none. Seconds as given to Backoff.
CREATE TABLE processes (
    process text NOT NULL,
    crash_backoff_initial double precision,
    crash_backoff_maximum double precision,
    crash_backoff_exponent double precision,
    crash_backoff_jitter double precision,
    quarantine_after int,
    process_registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT processes_pkey PRIMARY KEY (process),
    CONSTRAINT processes_crash_backoff_check CHECK (
        (crash_backoff_initial IS NULL) = (crash_backoff_exponent IS NULL)
        AND (crash_backoff_initial IS NULL) = (crash_backoff_jitter IS NULL)
        AND (crash_backoff_initial IS NOT NULL OR crash_backoff_maximum IS NULL)
    ),
    CONSTRAINT processes_quarantine_check CHECK (quarantine_after >= 1)
);

-- While one of the two holds a machine the other gets no lease of it. As declared by the first; it counts both ways.
CREATE TABLE process_exclusion (
    process text NOT NULL,
    excluded text NOT NULL,
    CONSTRAINT process_exclusion_pkey PRIMARY KEY (process, excluded),
    CONSTRAINT process_exclusion_check CHECK (process <> excluded)
);
CREATE INDEX process_exclusion_excluded_idx ON process_exclusion (excluded, process);

-- Holders lost in a row: the row goes when work ends in order. A quarantined pair is not leased until it is released.
CREATE TABLE work_loss (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    losses int NOT NULL,
    last_lost_at timestamptz NOT NULL,
    quarantined_at timestamptz,
    CONSTRAINT work_loss_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_loss_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
CREATE INDEX work_loss_quarantined_idx ON work_loss (machine_id, process) WHERE quarantined_at IS NOT NULL;

-- Refuses a lease beside an excluding one to whoever does not look: older libraries, SQL by hand. The rows of work_token
-- are where two that begin at the same moment meet; what this transaction has touched already is not touched again.
CREATE FUNCTION work_exclude() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rivals text[];
    holder text;
BEGIN
    rivals := ARRAY(
        SELECT DISTINCT CASE p.process WHEN NEW.process THEN p.excluded ELSE p.process END
        FROM process_exclusion AS p WHERE p.process = NEW.process OR p.excluded = NEW.process
    );
    IF rivals = '{}' THEN
        RETURN NEW;
    END IF;
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT NEW.machine_id, r.name, 0 FROM unnest(rivals || NEW.process) AS r (name) ORDER BY r.name COLLATE "C"
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token WHERE t.xmin <> pg_current_xact_id()::xid;
    SELECT w.process INTO holder FROM work AS w WHERE w.machine_id = NEW.machine_id AND w.process = ANY (rivals) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'machine % is being worked on under process "%", which excludes "%"',
            NEW.machine_id, holder, NEW.process
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'work_exclusion', TABLE = 'work';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER work_exclusion BEFORE INSERT OR UPDATE OF machine_id, process ON work
FOR EACH ROW EXECUTE FUNCTION work_exclude();

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
        EXECUTE format('GRANT %s ON processes, process_exclusion, work_loss TO %s', may.privilege_type, may.grantee);
    END LOOP;
END
$$;
