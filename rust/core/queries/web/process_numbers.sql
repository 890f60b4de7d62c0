-- Every process that anything is known of, and how much it has at the moment; NULL asks for all of them. The backoff of a
-- quarantine is part of it, and not counted as another one.
WITH leased AS (
    SELECT process, count(*) AS leases, min(work_started_at) AS oldest FROM work WHERE $1::text IS NULL OR process = $1::text GROUP BY process
), waiting AS (
    SELECT b.process, count(*) AS backoffs FROM work_backoff AS b
    WHERE b.until > statement_timestamp() AND ($1::text IS NULL OR b.process = $1::text)
        AND NOT EXISTS (
            SELECT 1 FROM work_loss AS l
            WHERE l.machine_id = b.machine_id AND l.process = b.process AND l.quarantined_at IS NOT NULL
        )
    GROUP BY b.process
), held AS (
    SELECT process, count(*) AS holds FROM work_hold
    WHERE process <> '' AND (until IS NULL OR until > statement_timestamp()) AND ($1::text IS NULL OR process = $1::text)
    GROUP BY process
), quarantined AS (
    SELECT process, count(*) AS quarantines FROM work_loss
    WHERE quarantined_at IS NOT NULL AND ($1::text IS NULL OR process = $1::text) GROUP BY process
), known AS (
    SELECT process FROM processes WHERE $1::text IS NULL OR process = $1::text
    UNION SELECT process FROM leased UNION SELECT process FROM waiting UNION SELECT process FROM held
    UNION SELECT process FROM quarantined
)
SELECT known.process, COALESCE(leases, 0) AS leases, oldest, COALESCE(backoffs, 0) AS backoffs, COALESCE(holds, 0) AS holds,
    COALESCE(quarantines, 0) AS quarantines
FROM known
LEFT JOIN leased ON leased.process = known.process
LEFT JOIN waiting ON waiting.process = known.process
LEFT JOIN held ON held.process = known.process
LEFT JOIN quarantined ON quarantined.process = known.process
ORDER BY known.process
