-- Nothing writes notes there (see queries/cockroachdb.rs); the tables are there for the statements that read them.
-- Many leases in one statement, machines that are looked at before all others, holds, and tables that stay small.

-- Made by the client for each claim of several machines: what a claim whose COMMIT was not answered has got is asked by it.
ALTER TABLE work ADD COLUMN IF NOT EXISTS claim_id uuid;
CREATE INDEX IF NOT EXISTS work_session_claim_idx ON work (session_id, claim_id);

-- Machines that a process should look at from `due` on: a hint and no truth, so there is no key and no foreign key, the
-- same one may come twice, and whoever claims deletes what it has looked at.
CREATE TABLE IF NOT EXISTS work_attention (
    process text NOT NULL,
    watcher text NOT NULL,
    machine_id uuid NOT NULL,
    due timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS work_attention_due_idx ON work_attention (process, watcher, due);

-- Which changes of which tags may give a process work. The watcher is the eligibility that asks, by its fingerprint: workers of one
-- process may have different ones, and each judges its own notes. What has no rows here gets no notes: it looks by itself.
-- A worker says every hour that it is there (queries/process/watching.sql); who has not for a day makes room for others.
CREATE TABLE IF NOT EXISTS process_watch (
    process text NOT NULL,
    watcher text NOT NULL,
    tag text NOT NULL,
    event text NOT NULL,
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT process_watch_pkey PRIMARY KEY (process, watcher, tag, event),
    CONSTRAINT process_watch_event_check CHECK (event IN ('INSERT', 'UPDATE', 'DELETE'))
);
CREATE INDEX IF NOT EXISTS process_watch_tag_idx ON process_watch (tag, event, process, watcher);

-- A person keeps workers away from a machine: all of them ('' as process) or those of one process; for ever, or until then.
CREATE TABLE IF NOT EXISTS work_hold (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    owner text NOT NULL,
    reason text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz,
    CONSTRAINT work_hold_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_hold_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
