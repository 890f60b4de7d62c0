-- As work/finish.sql. $7 are the causes, $8 the waits, $9 the periods that the next ones grow from (the waits before
-- jitter), both in seconds.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $7::text[], $8::bigint[], $9::bigint[]/*types*/) WITH ORDINALITY
        AS u (machine_id, process, session_id, token, component, cause, wait, period/*names*/, position)
), ended AS (
    DELETE FROM work AS w USING wanted
    WHERE w.machine_id = ANY ($1::uuid[])
        AND uuid_hash(w.machine_id) = uuid_hash(wanted.machine_id)
        AND w.machine_id IS NOT DISTINCT FROM wanted.machine_id AND w.process IS NOT DISTINCT FROM wanted.process
        AND w.session_id IS NOT DISTINCT FROM wanted.session_id AND w.token = wanted.token
    RETURNING w.machine_id, w.process, w.session_id, w.token, w.lease_id, wanted.component, wanted.cause, wanted.wait,
        wanted.period, wanted.position/*columns*/
), backed_off AS (
    INSERT INTO work_backoff AS b (machine_id, process, until, cause, last_interval_seconds)
    SELECT machine_id, process, clock_timestamp() + wait * interval '1 second', cause, period FROM ended
    ORDER BY machine_id, process
    ON CONFLICT (machine_id, process) DO UPDATE
    SET until = excluded.until, cause = excluded.cause, last_interval_seconds = excluded.last_interval_seconds
    RETURNING b.machine_id, b.process, b.until
), attended AS (
    -- A process that watches tags is reminded of the machine at the backoff's end.
    INSERT INTO work_attention (process, watcher, machine_id, due)
    SELECT backed_off.process, w.watcher, backed_off.machine_id, backed_off.until FROM backed_off
    CROSS JOIN LATERAL (SELECT DISTINCT watcher FROM process_watch WHERE process = backed_off.process OFFSET 0) AS w
), recovered AS (
    DELETE FROM work_loss AS l
    WHERE l.machine_id = ANY ($1::uuid[]) AND l.quarantined_at IS NULL
        AND EXISTS (SELECT 1 FROM ended WHERE ended.machine_id = l.machine_id AND ended.process = l.process OFFSET 0)
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Failed', cause, session_id, component, token, lease_id FROM ended
)/*changes*/
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    CASE WHEN $6::bool THEN pg_advisory_xact_lock_shared(hashtextextended(ended.session_id::text, 7226)) END AS marked,
    ended.position
FROM ended
