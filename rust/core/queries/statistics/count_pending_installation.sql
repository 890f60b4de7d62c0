-- Machines with an installation requested and not reported on, as in agent/os_installation_of.sql.
SELECT count(*) AS machines
FROM machine_os_installation_request AS wish
LEFT JOIN machine_os_installation_report AS report ON report.machine_id = wish.machine_id
WHERE report.generation IS DISTINCT FROM wish.generation;
