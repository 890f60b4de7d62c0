-- What nobody has looked at for minutes: no worker of the process is there, or it looks by itself. A sweep finds the machine.
DELETE FROM work_attention WHERE ctid = ANY (ARRAY(
    SELECT old.ctid
    FROM (SELECT DISTINCT process, watcher FROM process_watch) AS w, LATERAL (
        SELECT a.ctid FROM work_attention AS a
        WHERE a.process = w.process AND a.watcher = w.watcher AND a.due < clock_timestamp() - interval '5 minutes'
        ORDER BY a.due
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    ) AS old
    LIMIT $1
))
