-- How often holders were lost in a row, and since when the pair is in quarantine.
SELECT machine_id, process, losses, last_lost_at, quarantined_at
FROM work_loss
WHERE machine_id = $1 AND process = $2;
