-- Forgets names of transactions that were committed more than a week ago, $1 of them at most.
DELETE FROM transaction_key WHERE idempotency_key = ANY (ARRAY(
    SELECT k.idempotency_key FROM transaction_key AS k
    WHERE k.marked_at < clock_timestamp() - interval '7 days'
    ORDER BY k.marked_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
))
