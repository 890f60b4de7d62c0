-- Ends a hold. Processes that watch tags look at the machine at once; history says who ended it and why ($4), or whose hold it was.
WITH released AS (
    DELETE FROM work_hold WHERE machine_id = $1 AND process = $2 RETURNING machine_id, process, owner, reason
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT DISTINCT w.process, w.watcher, released.machine_id
    FROM released JOIN process_watch AS w ON released.process IN ('', w.process)
    RETURNING 1
)
INSERT INTO work_history (machine_id, process, event, failed_cause, component)
SELECT machine_id, process, 'Released', coalesce($4::text, owner || ': ' || reason), $3::text FROM released
-- Whoever waits for work is told (see work/notify.sql); of those kept away by a hold for all, the processes that watch tags.
WHERE 0 <= (
    SELECT count(pg_notify('bmdb_work', waiting.process))
    FROM (
        SELECT r.process FROM released AS r WHERE r.process <> ''
        UNION SELECT w.process FROM process_watch AS w, released AS r WHERE r.process = ''
    ) AS waiting
)
