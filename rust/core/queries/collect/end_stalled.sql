-- Ends the backends that are still inside a fenced transaction although its session's deadline has passed by more than
-- the grace given: their holder is stopped or cut off, and what they hold cannot be committed in time any more. Which
-- backends a role may end is asked first, as a refusal would undo the collection around it.
SELECT
    count(*) FILTER (WHERE stalled.mine AND pg_terminate_backend(stalled.pid)) AS ended,
    count(*) FILTER (WHERE NOT stalled.mine) AS beyond_reach
FROM (
    SELECT l.pid, coalesce(
        me.rolsuper OR (NOT owner.rolsuper
            AND (pg_has_role(owner.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))), false) AS mine
    FROM sessions AS s
    JOIN pg_locks AS l
        ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ShareLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(s.session_id::text, 7226)
    JOIN pg_stat_activity AS a ON a.pid = l.pid
    JOIN pg_roles AS me ON me.rolname = current_user
    LEFT JOIN pg_roles AS owner ON owner.oid = a.usesysid
    WHERE s.session_deadline < clock_timestamp() - $1::bigint * interval '1 millisecond'
        AND coalesce(a.state, '') NOT IN ('active', 'fastpath function call')
    OFFSET 0
) AS stalled
