-- How often each of the events $1 happened to each process in the last $2 seconds, in steps of $3 seconds; step 0 is the newest.
SELECT process, event, floor(extract(epoch FROM statement_timestamp() - "timestamp") / $3::float8)::int AS step, count(*) AS count
FROM work_history
WHERE "timestamp" > statement_timestamp() - $2::float8 * interval '1 second' AND event = ANY ($1::text[])
GROUP BY process, event, step
ORDER BY process, event, step
