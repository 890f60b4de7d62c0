-- What the process failed of in the last day, most frequent first. Causes that begin alike count as one: what follows is
-- often an address or a time. `cut` says whether something follows in any of them.
SELECT left(failed_cause, 500) AS cause, count(*) AS times, count(DISTINCT machine_id) AS machines,
    max("timestamp") AS latest, (array_agg(machine_id ORDER BY "timestamp" DESC))[1] AS latest_machine,
    COALESCE(bool_or(length(failed_cause) > 500), false) AS cut
FROM work_history
WHERE process = $1 AND event = 'Failed' AND "timestamp" > statement_timestamp() - interval '1 day'
GROUP BY left(failed_cause, 500)
ORDER BY times DESC, latest DESC
LIMIT $2
