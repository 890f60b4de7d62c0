-- The registered processes, with what excludes what, both ways.
SELECT p.process, p.crash_backoff_initial, p.crash_backoff_maximum, p.crash_backoff_exponent, p.crash_backoff_jitter,
    p.quarantine_after, p.process_registered_at,
    ARRAY(
        SELECT CASE e.process WHEN p.process THEN e.excluded ELSE e.process END AS other
        FROM process_exclusion AS e WHERE e.process = p.process OR e.excluded = p.process
        ORDER BY other
    ) AS excludes
FROM processes AS p
ORDER BY p.process
