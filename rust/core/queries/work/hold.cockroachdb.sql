-- As work/hold.sql, without notes.
WITH held AS (
    INSERT INTO work_hold AS h (machine_id, process, owner, reason, until)
    SELECT $1::uuid, $2::text, $3::text, $4::text, $5::timestamptz
    WHERE $5::timestamptz IS NULL OR $5::timestamptz > clock_timestamp()
    ON CONFLICT (machine_id, process) DO UPDATE
    SET owner = excluded.owner, reason = excluded.reason, held_at = clock_timestamp(), until = excluded.until
    RETURNING machine_id, process, owner, reason
)
INSERT INTO work_history (machine_id, process, event, failed_cause, component)
SELECT machine_id, process, 'Held', owner || ': ' || reason, $6::text FROM held
