-- Keeps workers from a machine: those of a process, or all ('' as process). Replaces the hold that is there; one that would have ended
-- already does nothing. Processes that watch tags are reminded of the machine when it ends.
WITH held AS (
    INSERT INTO work_hold AS h (machine_id, process, owner, reason, until)
    SELECT $1::uuid, $2::text, $3::text, $4::text, $5::timestamptz
    WHERE $5::timestamptz IS NULL OR $5::timestamptz > clock_timestamp()
    ON CONFLICT (machine_id, process) DO UPDATE
    SET owner = excluded.owner, reason = excluded.reason, held_at = clock_timestamp(), until = excluded.until
    RETURNING h.machine_id, h.process, h.owner, h.reason, h.until
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id, due)
    SELECT DISTINCT w.process, w.watcher, held.machine_id, held.until
    FROM held JOIN process_watch AS w ON held.process IN ('', w.process)
    WHERE held.until IS NOT NULL
    RETURNING 1
)
INSERT INTO work_history (machine_id, process, event, failed_cause, component)
SELECT machine_id, process, 'Held', owner || ': ' || reason, $6::text FROM held
