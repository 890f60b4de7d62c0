-- Names of processes that begin with $1: those that are registered, and those that hold something or wait for something.
SELECT process FROM (
    SELECT process FROM processes
    UNION SELECT process FROM process_exclusion
    UNION SELECT process FROM work
    UNION SELECT process FROM work_backoff
) AS known
WHERE left(process, length($1::text)) = $1::text
ORDER BY process
LIMIT $2
