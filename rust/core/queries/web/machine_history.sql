-- One page of a machine's history, newest first, $4 events: those not younger than $2, without the first $3 of that very moment. Each with
-- when its lease began and with how many leases there have been since the last one that was finished, itself included: NULL where
-- history has been pruned, so that it has neither that one nor the first lease of all.
WITH page AS MATERIALIZED (
    SELECT process, event, "timestamp", left(failed_cause, 20000) AS failed_cause, session_id, component, token
    FROM work_history
    WHERE machine_id = $1 AND ($2::timestamptz IS NULL OR "timestamp" <= $2)
    ORDER BY "timestamp" DESC, token DESC NULLS FIRST, process, event
    LIMIT $4::bigint OFFSET $3::bigint
), started AS MATERIALIZED (
    SELECT process, token, min("timestamp") AS began
    FROM work_history
    WHERE machine_id = $1 AND event = 'Started' AND token = ANY (ARRAY(SELECT page.token FROM page WHERE page.token IS NOT NULL))
    GROUP BY process, token
), counted AS MATERIALIZED (
    SELECT process, CASE event WHEN 'Finished' THEN token ELSE 0 END AS token
    FROM work_history
    WHERE machine_id = $1 AND (event = 'Finished' AND token IS NOT NULL OR event = 'Started' AND token = 1)
)
SELECT page.process, page.event, page."timestamp", page.failed_cause, page.session_id, page.component, page.token, started.began,
       page.token - (
           SELECT max(c.token) FROM counted AS c WHERE c.process = page.process AND c.token < page.token
       ) AS attempt
FROM page
LEFT JOIN started ON started.process = page.process AND started.token = page.token
ORDER BY page."timestamp" DESC, page.token DESC NULLS FIRST, page.process, page.event
