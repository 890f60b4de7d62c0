-- Removes up to $2 events from more than $1 seconds ago: history is one table, without months.
WITH gone AS (
    DELETE FROM work_history WHERE work_history_id IN (
        SELECT work_history_id FROM work_history
        WHERE "timestamp" < statement_timestamp() - $1::float8 * interval '1 second'
        ORDER BY "timestamp"
        LIMIT $2::bigint
    )
    RETURNING 1
)
SELECT count(*) AS removed, ARRAY[]::text[] AS dropped FROM gone
