-- No trigger on leases: claims see to exclusions themselves, in SERIALIZABLE.
-- What is known of processes beyond their names, and the losses of their holders.

-- The settings that every worker's collection applies. NULL: none. Seconds as given to Backoff.
CREATE TABLE IF NOT EXISTS processes (
    process text NOT NULL,
    crash_backoff_initial double precision,
    crash_backoff_maximum double precision,
    crash_backoff_exponent double precision,
    crash_backoff_jitter double precision,
    quarantine_after int4,
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
CREATE TABLE IF NOT EXISTS process_exclusion (
    process text NOT NULL,
    excluded text NOT NULL,
    CONSTRAINT process_exclusion_pkey PRIMARY KEY (process, excluded),
    CONSTRAINT process_exclusion_check CHECK (process <> excluded)
);
CREATE INDEX IF NOT EXISTS process_exclusion_excluded_idx ON process_exclusion (excluded, process);

-- Holders lost in a row: the row goes when work ends in order. A quarantined pair is not leased until it is released.
CREATE TABLE IF NOT EXISTS work_loss (
    machine_id uuid NOT NULL,
    process text NOT NULL,
    losses int4 NOT NULL,
    last_lost_at timestamptz NOT NULL,
    quarantined_at timestamptz,
    CONSTRAINT work_loss_pkey PRIMARY KEY (machine_id, process),
    CONSTRAINT work_loss_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS work_loss_quarantined_idx ON work_loss (machine_id, process) WHERE quarantined_at IS NOT NULL;
