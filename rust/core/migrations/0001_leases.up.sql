-- Machines, the sessions that work on them, leases, their history and their backoffs.
CREATE TABLE machines (
    machine_id uuid NOT NULL DEFAULT gen_random_uuid(),
    machine_created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT machines_pkey PRIMARY KEY (machine_id)
);

-- A session is live while its deadline lies ahead. Component and runtime info are for people.
CREATE TABLE sessions (
    session_id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_component_name text NOT NULL,
    session_runtime_info text NOT NULL,
    session_created_at timestamptz NOT NULL DEFAULT now(),
    session_interval_seconds int NOT NULL,
    session_deadline timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (session_id),
    CONSTRAINT sessions_interval_check CHECK (session_interval_seconds >= 1)
);

-- The unique pair is the lock: a row is a lease, and only deleting it ends the lease.
CREATE TABLE work (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    session_id uuid NOT NULL,
    token bigint NOT NULL,
    work_started_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT work_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE RESTRICT,
    CONSTRAINT work_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (session_id) ON DELETE CASCADE
);
CREATE INDEX work_session_idx ON work (session_id);

-- The last token handed out for a pair. No foreign key: a token must keep rising whatever happens to the machine.
-- A claim updates this row, so a claim judged on a snapshot older than a rival's claim fails on it.
CREATE TABLE work_token (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    token bigint NOT NULL,
    CONSTRAINT work_token_pkey PRIMARY KEY (machine_id, process)
);

-- Audit trail; outlives the machine and the session, hence no foreign keys.
CREATE TABLE work_history (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    event text NOT NULL,
    "timestamp" timestamptz NOT NULL DEFAULT clock_timestamp(),
    failed_cause text,
    session_id uuid,
    component text,
    token bigint
);
CREATE INDEX work_history_machine_idx ON work_history (machine_id, "timestamp");

-- last_interval_seconds is NULL in rows of older schemas; such a backoff starts again from its initial period.
CREATE TABLE work_backoff (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    until timestamptz NOT NULL,
    cause text NOT NULL,
    last_interval_seconds bigint,
    CONSTRAINT work_backoff_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_backoff_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
