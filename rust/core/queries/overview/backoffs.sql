-- Backoffs by process: how many keep it off a machine now, when the next of them ends, and how many machines are in quarantine.
SELECT b.process, count(*) FILTER (WHERE l.machine_id IS NULL) AS backoffs,
       min(b.until) FILTER (WHERE l.machine_id IS NULL) AS next,
       count(l.machine_id) AS quarantined
FROM work_backoff AS b
LEFT JOIN work_loss AS l ON l.machine_id = b.machine_id AND l.process = b.process AND l.quarantined_at IS NOT NULL
WHERE b.until > statement_timestamp()
GROUP BY b.process
ORDER BY b.process
