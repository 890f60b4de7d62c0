-- Which call has committed the transaction named $1. Locked, so that where its transaction may still be at it (CockroachDB) this
-- waits for its end.
SELECT call_id FROM transaction_key WHERE idempotency_key = $1 FOR UPDATE
