-- How often what happened, by process, in the last hour and in the last day; NULL asks for all processes.
SELECT process, event, count(*) FILTER (WHERE "timestamp" > statement_timestamp() - interval '1 hour') AS hour, count(*) AS day
FROM work_history
WHERE "timestamp" > statement_timestamp() - interval '1 day' AND ($1::text IS NULL OR process = $1::text) AND process <> ''
GROUP BY process, event
ORDER BY process, event
