-- What collection has ahead of it among the sessions of others: how many have expired, in how many seconds the next one
-- will, and the next one that is past its trust already, which nobody renews any more.
SELECT
    count(*) FILTER (WHERE ahead <= 0) AS expired,
    min(ahead) FILTER (WHERE ahead > 0) AS next,
    min(ahead) FILTER (WHERE ahead > 0 AND ahead < session_interval_seconds / 5.0) AS doomed
FROM (
    SELECT extract(epoch FROM session_deadline - clock_timestamp())::float8 AS ahead, session_interval_seconds
    FROM sessions
    WHERE session_id <> ALL($1::uuid[])
) AS others
