-- What is stored of these processes, a row for each: NULL where nothing is.
SELECT wanted.name AS process, p.crash_backoff_initial, p.crash_backoff_maximum, p.crash_backoff_exponent,
    p.crash_backoff_jitter, p.quarantine_after,
    ARRAY(SELECT e.excluded FROM process_exclusion AS e WHERE e.process = wanted.name) AS excludes,
    ARRAY(
        SELECT w.watcher FROM process_watch AS w WHERE w.process = wanted.name ORDER BY w.watcher, w.tag, w.event
    ) AS watchers,
    ARRAY(
        SELECT w.tag FROM process_watch AS w WHERE w.process = wanted.name ORDER BY w.watcher, w.tag, w.event
    ) AS watched_tags,
    ARRAY(
        SELECT w.event FROM process_watch AS w WHERE w.process = wanted.name ORDER BY w.watcher, w.tag, w.event
    ) AS watched_events
FROM unnest($1::text[]) AS wanted (name)
LEFT JOIN processes AS p ON p.process = wanted.name
