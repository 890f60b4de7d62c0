-- The registered processes, with what excludes what, both ways, and when a worker last said that it is there.
SELECT p.process, p.backoff_initial, p.backoff_maximum, p.backoff_exponent, p.backoff_jitter, p.max_hold,
    p.crash_backoff_initial, p.crash_backoff_maximum, p.crash_backoff_exponent, p.crash_backoff_jitter, p.quarantine_after,
    ARRAY(
        SELECT CASE e.process WHEN p.process THEN e.excluded ELSE e.process END AS other
        FROM process_exclusion AS e WHERE e.process = p.process OR e.excluded = p.process
        ORDER BY other
    ) AS excludes,
    p.process_registered_at, p.version,
    greatest(p.process_seen_at, (SELECT max(e.seen) FROM process_eligibility AS e WHERE e.process = p.process)) AS seen
FROM processes AS p
ORDER BY p.process
