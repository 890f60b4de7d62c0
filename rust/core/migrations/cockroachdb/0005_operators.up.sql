-- What operators see of processes without the workers' code, and a history that can be kept short.

-- What workers say of a process besides what the database enforces. Seconds as given to Backoff.
ALTER TABLE processes
    ADD COLUMN IF NOT EXISTS backoff_initial double precision,
    ADD COLUMN IF NOT EXISTS backoff_maximum double precision,
    ADD COLUMN IF NOT EXISTS backoff_exponent double precision,
    ADD COLUMN IF NOT EXISTS backoff_jitter double precision,
    ADD COLUMN IF NOT EXISTS max_hold double precision,
    ADD COLUMN IF NOT EXISTS version text,
    ADD COLUMN IF NOT EXISTS process_seen_at timestamptz;

-- Which machines need a process, in SQL that says all by itself: parameters are written into it. A worker says once a minute that
-- it asks.
CREATE TABLE IF NOT EXISTS process_eligibility (
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

-- For the pages of sessions, for what happened in the last hour, and for pruning: history is one table there.
CREATE INDEX IF NOT EXISTS work_history_session_idx ON work_history (session_id, "timestamp");
CREATE INDEX IF NOT EXISTS work_history_timestamp_idx ON work_history ("timestamp");
