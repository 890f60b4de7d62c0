-- What the claim $3 of session $1 has leased for process $2, as claim/verify.sql would have answered.
SELECT leased.machine_id, leased.token,
    (
        SELECT b.last_interval_seconds FROM work_backoff AS b
        WHERE b.machine_id = leased.machine_id AND b.process = $2::text
    ) AS last_interval_seconds
FROM work AS leased
WHERE leased.session_id = $1 AND leased.claim_id = $3
