-- Writes later than $1 to a machine whose lease was lost before, or, in a table without machines, after any loss, by a transaction
-- that was not entitled to it.
SELECT w.written_at, w.relation, w.operation, w.machine_id, w.session_id, w.application, w.backend,
    l.process, l.session_id AS lost_by, l.token, l."timestamp" AS lost_at
FROM bmdb_testing.writes AS w
CROSS JOIN LATERAL (
    SELECT h.process, h.session_id, h.token, h."timestamp"
    FROM work_history AS h
    WHERE h.event = 'Lost' AND h."timestamp" < w.written_at AND (w.machine_id IS NULL OR h.machine_id = w.machine_id)
    ORDER BY h."timestamp" DESC
    LIMIT 1
) AS l
WHERE w.position > $1::bigint AND NOT w.entitled
ORDER BY w.position
