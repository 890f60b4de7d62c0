-- Ends leases: arrays of one length, an end at each position. Deleting the lease is the fence: no row, no finish. With $6
-- an advisory lock names this backend to collection (see session/fence.sql). The marks are where changes of tags are
-- written in. Each table is looked up by the list of machines, and what is compared after that cannot start a join from the wrong
-- side: the plan is the same whether the planner takes a table for empty or for huge. The hash makes the comparison a hash join.
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
), forgiven AS (
    DELETE FROM work_backoff AS b
    WHERE b.machine_id = ANY ($1::uuid[])
        AND EXISTS (SELECT 1 FROM ended WHERE ended.machine_id = b.machine_id AND ended.process = b.process OFFSET 0)
), recovered AS (
    DELETE FROM work_loss AS l
    WHERE l.machine_id = ANY ($1::uuid[]) AND l.quarantined_at IS NULL
        AND EXISTS (SELECT 1 FROM ended WHERE ended.machine_id = l.machine_id AND ended.process = l.process OFFSET 0)
), audited AS (
    INSERT INTO work_history (machine_id, process, event, session_id, component, token, lease_id)
    SELECT machine_id, process, 'Finished', session_id, component, token, lease_id FROM ended
)/*changes*/
SELECT
    pg_current_xact_id()::text::bigint AS xid,
    CASE WHEN $6::bool THEN pg_advisory_xact_lock_shared(hashtextextended(ended.session_id::text, 7226)) END AS marked,
    ended.position
FROM ended
