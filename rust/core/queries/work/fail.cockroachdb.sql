-- As work/finish.cockroachdb.sql and work/fail.sql, without notes.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $7::text[], $8::bigint[], $9::bigint[]/*types*/) WITH ORDINALITY
        AS u (machine_id, process, session_id, token, component, cause, wait, period/*names*/, position)
), gone AS (
    DELETE FROM work
    WHERE machine_id = ANY ($1::uuid[])
        AND (machine_id, process, session_id, token) IN (SELECT machine_id, process, session_id, token FROM wanted)
    RETURNING machine_id, process, session_id, token, lease_id
), ended AS MATERIALIZED (
    SELECT gone.machine_id, gone.process, gone.session_id, gone.token, gone.lease_id, wanted.component,
        wanted.cause, wanted.wait, wanted.period, wanted.position/*columns*/
    FROM gone JOIN wanted ON wanted.machine_id = gone.machine_id AND wanted.process = gone.process
        AND wanted.session_id = gone.session_id AND wanted.token = gone.token
), backed_off AS (
    INSERT INTO work_backoff AS b (machine_id, process, until, cause, last_interval_seconds)
    SELECT machine_id, process, clock_timestamp() + wait * interval '1 second', cause, period FROM ended
    ORDER BY machine_id, process
    ON CONFLICT (machine_id, process) DO UPDATE
    SET until = excluded.until, cause = excluded.cause, last_interval_seconds = excluded.last_interval_seconds
    RETURNING 1
), recovered AS (
    DELETE FROM work_loss
    WHERE machine_id = ANY ($1::uuid[]) AND quarantined_at IS NULL
        AND (machine_id, process) IN (SELECT machine_id, process FROM ended)
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Failed', cause, session_id, component, token, lease_id FROM ended
    RETURNING 1
)/*changes*/
SELECT NULL::int8 AS xid, ended.position FROM ended WHERE $6::bool IS NOT NULL
