-- The process succeeded, so its next failure starts again from the initial period.
DELETE FROM work_backoff WHERE machine_id = $1 AND process = $2;
