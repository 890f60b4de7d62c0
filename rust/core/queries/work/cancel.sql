-- As work/finish.sql. Whoever waits for work of the processes is told that machines are free (see work/notify.sql).
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[]/*types*/) WITH ORDINALITY
        AS u (machine_id, process, session_id, token, component/*names*/, position)
), ended AS (
    DELETE FROM work AS w USING wanted
    WHERE w.machine_id = ANY ($1::uuid[])
        AND uuid_hash(w.machine_id) = uuid_hash(wanted.machine_id)
        AND w.machine_id IS NOT DISTINCT FROM wanted.machine_id AND w.process IS NOT DISTINCT FROM wanted.process
        AND w.session_id IS NOT DISTINCT FROM wanted.session_id AND w.token = wanted.token
    RETURNING w.machine_id, w.process, w.session_id, w.token, w.lease_id, wanted.component, wanted.position/*columns*/
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT ended.process, w.watcher, ended.machine_id FROM ended
    CROSS JOIN LATERAL (SELECT DISTINCT watcher FROM process_watch WHERE process = ended.process OFFSET 0) AS w
), recovered AS (
    DELETE FROM work_loss AS l
    WHERE l.machine_id = ANY ($1::uuid[]) AND l.quarantined_at IS NULL
        AND EXISTS (SELECT 1 FROM ended WHERE ended.machine_id = l.machine_id AND ended.process = l.process OFFSET 0)
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Canceled', session_id, component, token, lease_id FROM ended
)/*changes*/
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    CASE WHEN $6::bool THEN pg_advisory_xact_lock_shared(hashtextextended(ended.session_id::text, 7226)) END AS marked,
    pg_notify('bmdb_work', ended.process) AS told,
    ended.position
FROM ended
