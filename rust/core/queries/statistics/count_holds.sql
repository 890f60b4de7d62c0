-- Holds in force, by process; one that is for all processes has an empty one.
SELECT process, count(*) AS count
FROM work_hold
WHERE until IS NULL OR until > clock_timestamp()
GROUP BY process
ORDER BY process;
