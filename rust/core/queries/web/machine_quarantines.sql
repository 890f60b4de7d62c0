-- What was lost of a machine in a row, and whether it is in quarantine.
SELECT machine_id, process, losses, last_lost_at, quarantined_at
FROM work_loss
WHERE machine_id = $1
ORDER BY process
