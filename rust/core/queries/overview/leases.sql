-- Leases by process: how many, of how many sessions, how many of expired ones, and when the oldest began.
SELECT work.process, count(*) AS leases, count(DISTINCT work.session_id) AS sessions,
       count(*) FILTER (WHERE sessions.session_deadline <= clock_timestamp()) AS orphaned,
       min(work.work_started_at) AS oldest
FROM work
JOIN sessions ON sessions.session_id = work.session_id
GROUP BY work.process
ORDER BY work.process
