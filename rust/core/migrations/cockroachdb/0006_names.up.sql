-- Leases that their clients name, and transactions that theirs do: what an answer that was lost came to can be asked on any server.

-- Made by the client for each lease before it is claimed, and kept by history. NULL: leased by a worker of schema 5, or by hand.
ALTER TABLE work ADD COLUMN IF NOT EXISTS lease_id uuid;
ALTER TABLE work_history ADD COLUMN IF NOT EXISTS lease_id uuid;
CREATE INDEX IF NOT EXISTS work_session_lease_idx ON work (session_id, lease_id);
-- One event of a kind for each lease.
CREATE UNIQUE INDEX IF NOT EXISTS work_history_lease_key ON work_history (lease_id, event) WHERE lease_id IS NOT NULL;

-- What transact(…, idempotency_key=…) has committed: written by that transaction, so it is there if and only if all else of it is.
-- call_id is made for each call: it tells a caller whether the transaction was its own. Forgotten after a week.
CREATE TABLE IF NOT EXISTS transaction_key (
    idempotency_key text NOT NULL,
    call_id uuid NOT NULL,
    session_id uuid NOT NULL,
    component text NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT transaction_key_pkey PRIMARY KEY (idempotency_key)
);
CREATE INDEX IF NOT EXISTS transaction_key_marked_idx ON transaction_key (marked_at);
