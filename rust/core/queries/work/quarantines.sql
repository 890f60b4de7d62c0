-- What is in quarantine.
SELECT machine_id, process, losses, last_lost_at, quarantined_at
FROM work_loss
WHERE quarantined_at IS NOT NULL
ORDER BY machine_id, process;
