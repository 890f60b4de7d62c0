-- What the claim $3 of session $1 has leased for process $2, as claim/verify.sql would have answered.
SELECT leased.machine_id, leased.token, leased.lease_id,
    (
        SELECT b.last_interval_seconds FROM work_backoff AS b
        WHERE b.machine_id = leased.machine_id AND b.process = $2::text
    ) AS last_interval_seconds
FROM work AS leased
WHERE leased.session_id = $1 AND leased.lease_id > $3 AND leased.lease_id <= (left($3::uuid::text, 32) || 'ffff')::uuid
