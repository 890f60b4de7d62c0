-- The machine's request while it is pending: no report, or a report of another generation. A report of the same
-- generation ends it, whatever its result: a repetition is asked for by a new generation.
SELECT wish.machine_id, wish.generation, wish.os_installation_request_raw
FROM machine_os_installation_request AS wish
LEFT JOIN machine_os_installation_report AS report ON report.machine_id = wish.machine_id
WHERE wish.machine_id = $1 AND report.generation IS DISTINCT FROM wish.generation;
