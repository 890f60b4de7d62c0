-- The machines by what keeps workers off them or at them: one may be in several states, and is idle if it is in none. A backoff that
-- stands for a quarantine counts as that only.
WITH leased AS (
    SELECT DISTINCT machine_id FROM work
), waiting AS (
    SELECT DISTINCT b.machine_id
    FROM work_backoff AS b
    LEFT JOIN work_loss AS l ON l.machine_id = b.machine_id AND l.process = b.process AND l.quarantined_at IS NOT NULL
    WHERE b.until > statement_timestamp() AND l.machine_id IS NULL
), held AS (
    SELECT DISTINCT machine_id FROM work_hold WHERE until IS NULL OR until > statement_timestamp()
), quarantined AS (
    SELECT DISTINCT machine_id FROM work_loss WHERE quarantined_at IS NOT NULL
), busy AS (
    SELECT machine_id FROM leased
    UNION SELECT machine_id FROM waiting
    UNION SELECT machine_id FROM held
    UNION SELECT machine_id FROM quarantined
)
SELECT machines, leased, waiting, held, quarantined, greatest(machines - busy, 0) AS idle
FROM (
    SELECT
        (SELECT count(*) FROM machines) AS machines,
        (SELECT count(*) FROM leased) AS leased,
        (SELECT count(*) FROM waiting) AS waiting,
        (SELECT count(*) FROM held) AS held,
        (SELECT count(*) FROM quarantined) AS quarantined,
        (SELECT count(*) FROM busy) AS busy
) AS counted
