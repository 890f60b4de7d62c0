-- Sessions that live, and those that have expired and are not collected yet.
SELECT CASE WHEN session_deadline < clock_timestamp() THEN 'expired' ELSE 'live' END AS state, count(*) AS count
FROM sessions
GROUP BY state
ORDER BY state;
