-- How many events are older than $1 seconds.
SELECT count(*) AS events FROM work_history WHERE "timestamp" < statement_timestamp() - $1::float8 * interval '1 second'
