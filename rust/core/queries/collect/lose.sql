WITH lost AS (
    DELETE FROM work WHERE session_id = ANY($1::uuid[]) RETURNING machine_id, process, session_id, token
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token)
    SELECT lost.machine_id, lost.process, 'Lost', lost.session_id, s.session_component_name, lost.token
    FROM lost JOIN sessions AS s ON s.session_id = lost.session_id
    RETURNING 1
), ended AS (
    DELETE FROM sessions WHERE session_id = ANY($1::uuid[]) RETURNING 1
)
SELECT (SELECT count(*) FROM ended) AS sessions, (SELECT count(*) FROM lost) AS leases,
    (SELECT count(*) FROM audited) AS audited
