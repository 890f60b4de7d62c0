-- Leases by process, those of expired sessions included until they are collected.
SELECT process, count(*) AS count FROM work GROUP BY process ORDER BY process;
