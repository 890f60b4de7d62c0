-- Backoffs that still exclude a machine, by process.
SELECT process, count(*) AS count
FROM work_backoff
WHERE until > statement_timestamp()
GROUP BY process
ORDER BY process;
