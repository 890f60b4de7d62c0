-- What a worker says of a process, for people: its backoff, how long work may be held, the version of bmdb, and that it is there. It
-- costs no write within a minute of the last one that said the same.
INSERT INTO processes AS p (
    process, backoff_initial, backoff_maximum, backoff_exponent, backoff_jitter, max_hold, version, process_seen_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())
ON CONFLICT (process) DO UPDATE
SET backoff_initial = excluded.backoff_initial, backoff_maximum = excluded.backoff_maximum,
    backoff_exponent = excluded.backoff_exponent, backoff_jitter = excluded.backoff_jitter, max_hold = excluded.max_hold,
    version = excluded.version, process_seen_at = excluded.process_seen_at
WHERE (p.backoff_initial, p.backoff_maximum, p.backoff_exponent, p.backoff_jitter, p.max_hold, p.version) IS DISTINCT FROM
        (excluded.backoff_initial, excluded.backoff_maximum, excluded.backoff_exponent, excluded.backoff_jitter,
            excluded.max_hold, excluded.version)
    OR p.process_seen_at IS NULL OR p.process_seen_at < clock_timestamp() - interval '1 minute'
