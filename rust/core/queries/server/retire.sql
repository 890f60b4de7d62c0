-- Ends the backend $1 that started at $2, whose client has given the connection up; no row once it is gone. One that waits for a
-- standby is left to it: ending it would take back a promise of durability.
SELECT pid, CASE WHEN wait_event IS DISTINCT FROM 'SyncRep' THEN pg_terminate_backend(pid) END AS told
FROM pg_stat_activity
WHERE pid = $1::int AND backend_start = $2::text::timestamptz
