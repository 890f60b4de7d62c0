-- One page of what a session did, newest first: the events before the one given by time, machine, process and name; NULL as the
-- time asks for the newest. With an end comes when that lease began.
WITH page AS MATERIALIZED (
    SELECT machine_id, process, event, "timestamp", failed_cause, component, token
    FROM work_history
    WHERE session_id = $1
      AND ($2::timestamptz IS NULL OR ("timestamp", machine_id, process, event) < ($2::timestamptz, $3::uuid, $4::text, $5::text))
    ORDER BY "timestamp" DESC, machine_id DESC, process DESC, event DESC
    LIMIT $6
)
SELECT page.machine_id, page.process, page.event, page."timestamp", page.failed_cause, page.component, page.token, began.at
FROM page
LEFT JOIN LATERAL (
    SELECT h."timestamp" AS at
    FROM work_history AS h
    WHERE page.token IS NOT NULL AND page.event <> 'Started'
      AND h.machine_id = page.machine_id AND h."timestamp" <= page."timestamp"
      AND h.process = page.process AND h.token = page.token AND h.event = 'Started'
    ORDER BY h."timestamp" DESC
    LIMIT 1
) AS began ON true
ORDER BY page."timestamp" DESC, page.machine_id DESC, page.process DESC, page.event DESC
