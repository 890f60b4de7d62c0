-- As work/finish.cockroachdb.sql, and nobody is told.
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[]/*types*/) WITH ORDINALITY
        AS u (machine_id, process, session_id, token, component/*names*/, position)
), gone AS (
    DELETE FROM work
    WHERE machine_id = ANY ($1::uuid[])
        AND (machine_id, process, session_id, token) IN (SELECT machine_id, process, session_id, token FROM wanted)
    RETURNING machine_id, process, session_id, token, lease_id
), ended AS MATERIALIZED (
    SELECT gone.machine_id, gone.process, gone.session_id, gone.token, gone.lease_id, wanted.component, wanted.position/*columns*/
    FROM gone JOIN wanted ON wanted.machine_id = gone.machine_id AND wanted.process = gone.process
        AND wanted.session_id = gone.session_id AND wanted.token = gone.token
), recovered AS (
    DELETE FROM work_loss
    WHERE machine_id = ANY ($1::uuid[]) AND quarantined_at IS NULL
        AND (machine_id, process) IN (SELECT machine_id, process FROM ended)
    RETURNING 1
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Canceled', session_id, component, token, lease_id FROM ended
    RETURNING 1
)/*changes*/
SELECT NULL::int8 AS xid, ended.position FROM ended WHERE $6::bool IS NOT NULL
