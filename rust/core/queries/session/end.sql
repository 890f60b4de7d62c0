-- Whoever waits for what the session held is told (see work/notify.sql); nothing held, nobody told.
WITH released AS (
    DELETE FROM work WHERE session_id = $1 RETURNING machine_id, process, token, lease_id
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT released.process, w.watcher, released.machine_id FROM released
    CROSS JOIN LATERAL (SELECT DISTINCT watcher FROM process_watch WHERE process = released.process OFFSET 0) AS w
    RETURNING 1
), recovered AS (
    DELETE FROM work_loss AS l USING released
    WHERE l.machine_id = released.machine_id AND l.process = released.process AND l.quarantined_at IS NULL
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Canceled', $1, $2, token, lease_id FROM released
    RETURNING 1
), ended AS (
    DELETE FROM sessions WHERE session_id = $1 RETURNING 1
), told AS (
    SELECT count(pg_notify('bmdb_work', process)) FROM (SELECT DISTINCT process FROM released) AS freed
)
SELECT (SELECT count(*) FROM released) AS released, (SELECT count(*) FROM ended) AS ended,
    (SELECT count(*) FROM audited) AS audited, (SELECT count FROM told) AS told
