-- How many of these events of its leases history does not have (any more).
SELECT count(*) AS forgotten
FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::text[]) AS told (machine_id, process, token, event)
WHERE NOT EXISTS (
    SELECT 1 FROM work_history AS h
    WHERE h.machine_id = told.machine_id AND h.process = told.process AND h.session_id = $1
        AND h.token = told.token AND h.event::text = told.event
)
