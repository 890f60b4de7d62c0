-- What these machines are leased for, held for, waiting for and in quarantine for, with who or why; '' as process means all of them.
SELECT w.machine_id, 'lease' AS state, w.process, s.session_component_name AS said, w.session_id,
       CASE WHEN s.session_deadline > clock_timestamp() THEN NULL ELSE s.session_deadline END AS until
FROM work AS w JOIN sessions AS s ON s.session_id = w.session_id
WHERE w.machine_id = ANY ($1::uuid[])
UNION ALL
SELECT b.machine_id, 'backoff', b.process, left(b.cause, 2000), NULL, b.until
FROM work_backoff AS b
WHERE b.machine_id = ANY ($1::uuid[]) AND b.until > statement_timestamp()
    AND NOT EXISTS (
        SELECT 1 FROM work_loss AS l
        WHERE l.machine_id = b.machine_id AND l.process = b.process AND l.quarantined_at IS NOT NULL
    )
UNION ALL
SELECT h.machine_id, 'hold', h.process, left(h.owner || ': ' || h.reason, 2000), NULL, h.until
FROM work_hold AS h
WHERE h.machine_id = ANY ($1::uuid[]) AND (h.until IS NULL OR h.until > statement_timestamp())
UNION ALL
SELECT l.machine_id, 'quarantine', l.process, l.losses::text, NULL, l.quarantined_at
FROM work_loss AS l
WHERE l.machine_id = ANY ($1::uuid[]) AND l.quarantined_at IS NOT NULL
ORDER BY machine_id, state, process
