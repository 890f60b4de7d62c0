-- The backoffs pass now; how long they were is kept, since the next one grows from that. Processes that watch tags are reminded of
-- the machines, as they would have been, and whoever waits is told.
WITH passed AS (
    UPDATE work_backoff SET until = clock_timestamp() - interval '1 microsecond'
    WHERE ($1::uuid IS NULL OR machine_id = $1::uuid) AND ($2::text IS NULL OR process = $2::text) AND until > clock_timestamp()
    RETURNING machine_id, process
), attended AS (
    INSERT INTO work_attention (process, watcher, machine_id)
    SELECT passed.process, w.watcher, passed.machine_id FROM passed
    CROSS JOIN LATERAL (SELECT DISTINCT watcher FROM process_watch WHERE process = passed.process OFFSET 0) AS w
)
SELECT (SELECT count(*) FROM passed) AS passed,
    (SELECT count(pg_notify('bmdb_work', process)) FROM (SELECT DISTINCT process FROM passed) AS freed) AS told
