-- Machines in quarantine, by process.
SELECT process, count(*) AS count
FROM work_loss
WHERE quarantined_at IS NOT NULL
GROUP BY process
ORDER BY process;
