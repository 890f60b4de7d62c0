-- CockroachDB. Each statement is sent by itself, since it "does not support schema changes within explicit transactions with full
-- atomicity guarantees", so each can be done again: one that was interrupted is gone on with. int is int4: a bare INT has 64 bits there.
-- Machines, the sessions that work on them, leases, their history and their backoffs.
CREATE TABLE IF NOT EXISTS machines (
    machine_id uuid NOT NULL DEFAULT gen_random_uuid(),
    machine_created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT machines_pkey PRIMARY KEY (machine_id)
);

-- A session is live while its deadline lies ahead. Component and runtime info are for people. Families are stored apart: who reads one
-- has no conflict with who renews the other.
CREATE TABLE IF NOT EXISTS sessions (
    session_id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_component_name text NOT NULL,
    session_runtime_info text NOT NULL,
    session_created_at timestamptz NOT NULL DEFAULT now(),
    session_interval_seconds int4 NOT NULL,
    session_deadline timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (session_id),
    CONSTRAINT sessions_interval_check CHECK (session_interval_seconds >= 1),
    FAMILY fixed (session_id, session_component_name, session_runtime_info, session_created_at, session_interval_seconds),
    FAMILY renewed (session_deadline)
);

-- What a transaction writes that is fenced by its session, one row for each connection: see queries/session/fence.cockroachdb.sql.
CREATE TABLE IF NOT EXISTS session_fence (
    session_id uuid NOT NULL,
    place bigint NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    CONSTRAINT session_fence_pkey PRIMARY KEY (session_id, place),
    CONSTRAINT session_fence_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (session_id) ON DELETE CASCADE
);

-- The unique pair is the lock: a row is a lease, and only deleting it ends the lease.
CREATE TABLE IF NOT EXISTS work (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    session_id uuid NOT NULL,
    token bigint NOT NULL,
    work_started_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT work_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE RESTRICT,
    CONSTRAINT work_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (session_id) ON DELETE CASCADE
);

-- The last token handed out for a pair. No foreign key: a token must keep rising whatever happens to the machine.
-- A claim updates this row, so a claim judged on a snapshot older than a rival's claim fails on it.
CREATE TABLE IF NOT EXISTS work_token (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    token bigint NOT NULL,
    CONSTRAINT work_token_pkey PRIMARY KEY (machine_id, process)
);

-- Audit trail; outlives the machine and the session, hence no foreign keys.
CREATE TABLE IF NOT EXISTS work_history (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    event text NOT NULL,
    "timestamp" timestamptz NOT NULL DEFAULT clock_timestamp(),
    failed_cause text,
    session_id uuid,
    component text,
    token bigint,
    work_history_id uuid NOT NULL DEFAULT gen_random_uuid(),
    CONSTRAINT work_history_pkey PRIMARY KEY (work_history_id)
);
CREATE INDEX IF NOT EXISTS work_history_machine_idx ON work_history (machine_id, "timestamp");

-- last_interval_seconds is NULL in rows of older schemas; such a backoff starts again from its initial period.
CREATE TABLE IF NOT EXISTS work_backoff (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    until timestamptz NOT NULL,
    cause text NOT NULL,
    last_interval_seconds bigint,
    CONSTRAINT work_backoff_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_backoff_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
