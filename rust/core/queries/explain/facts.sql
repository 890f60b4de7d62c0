-- What keeps process $2 off machine $1 apart from tags, a row for each: its kind, and what there is to say of it.
WITH rival AS MATERIALIZED (
    SELECT CASE p.process WHEN $2::text THEN p.excluded ELSE p.process END AS name
    FROM process_exclusion AS p WHERE p.process = $2::text OR p.excluded = $2::text
)
SELECT 'machine' AS kind, jsonb_build_object('created_at', m.machine_created_at) AS facts
FROM machines AS m WHERE m.machine_id = $1::uuid
UNION ALL
SELECT 'process', jsonb_build_object('registered_at', p.process_registered_at) FROM processes AS p WHERE p.process = $2::text
UNION ALL
SELECT CASE w.process WHEN $2::text THEN 'lease' ELSE 'exclusion' END, jsonb_build_object(
    'process', w.process, 'session_id', w.session_id, 'token', w.token, 'since', w.work_started_at,
    'component', s.session_component_name, 'runtime_info', s.session_runtime_info,
    'until', s.session_deadline, 'live', s.session_deadline > clock_timestamp()
)
FROM work AS w JOIN sessions AS s ON s.session_id = w.session_id
WHERE w.machine_id = $1::uuid AND (w.process = $2::text OR w.process IN (SELECT name FROM rival))
UNION ALL
SELECT 'backoff', jsonb_build_object(
    'until', b.until, 'cause', b.cause, 'interval_seconds', b.last_interval_seconds,
    'failures', (
        SELECT count(*) FROM work_history AS h
        WHERE h.machine_id = b.machine_id AND h.process = b.process AND h.event IN ('Failed', 'Lost') AND h."timestamp" > coalesce((
            SELECT max(f."timestamp") FROM work_history AS f
            WHERE f.machine_id = b.machine_id AND f.process = b.process AND f.event IN ('Finished', 'BackoffCleared', 'QuarantineReleased')
        ), '0001-01-01 00:00:00+00')
    )
)
FROM work_backoff AS b
WHERE b.machine_id = $1::uuid AND b.process = $2::text AND b.until > clock_timestamp() AND b.until <> '9999-12-31 00:00:00+00'
UNION ALL
SELECT 'hold', jsonb_build_object(
    'process', nullif(h.process, ''), 'owner', h.owner, 'reason', h.reason, 'since', h.held_at, 'until', h.until
)
FROM work_hold AS h
WHERE h.machine_id = $1::uuid AND h.process IN ('', $2::text) AND (h.until IS NULL OR h.until > clock_timestamp())
UNION ALL
SELECT 'quarantine', jsonb_build_object(
    'losses', l.losses, 'last_lost_at', l.last_lost_at, 'since', l.quarantined_at,
    'lost', (
        SELECT jsonb_agg(jsonb_build_object('at', r."timestamp", 'session_id', r.session_id, 'component', r.component))
        FROM (
            SELECT h."timestamp", h.session_id, h.component FROM work_history AS h
            WHERE h.machine_id = l.machine_id AND h.process = l.process AND h.event = 'Lost'
            ORDER BY h."timestamp" DESC LIMIT least(l.losses, 10)
        ) AS r
    )
)
FROM work_loss AS l
WHERE l.machine_id = $1::uuid AND l.process = $2::text AND l.quarantined_at IS NOT NULL
