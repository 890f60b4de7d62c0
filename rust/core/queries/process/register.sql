-- Stores a process's settings. One that is NULL leaves alone what is stored, unless $7.
INSERT INTO processes AS p (
    process, crash_backoff_initial, crash_backoff_maximum, crash_backoff_exponent, crash_backoff_jitter, quarantine_after
)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (process) DO UPDATE
SET crash_backoff_initial = CASE WHEN $7::bool OR excluded.crash_backoff_initial IS NOT NULL
        THEN excluded.crash_backoff_initial ELSE p.crash_backoff_initial END,
    crash_backoff_maximum = CASE WHEN $7::bool OR excluded.crash_backoff_initial IS NOT NULL
        THEN excluded.crash_backoff_maximum ELSE p.crash_backoff_maximum END,
    crash_backoff_exponent = CASE WHEN $7::bool OR excluded.crash_backoff_initial IS NOT NULL
        THEN excluded.crash_backoff_exponent ELSE p.crash_backoff_exponent END,
    crash_backoff_jitter = CASE WHEN $7::bool OR excluded.crash_backoff_initial IS NOT NULL
        THEN excluded.crash_backoff_jitter ELSE p.crash_backoff_jitter END,
    quarantine_after = CASE WHEN $7::bool OR excluded.quarantine_after IS NOT NULL
        THEN excluded.quarantine_after ELSE p.quarantine_after END,
    process_registered_at = clock_timestamp()
