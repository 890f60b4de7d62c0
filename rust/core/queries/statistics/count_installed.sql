-- Machines whose requested installation succeeded.
SELECT count(*) AS machines
FROM machine_os_installation_request AS wish
JOIN machine_os_installation_report AS report
    ON report.machine_id = wish.machine_id AND report.generation = wish.generation
WHERE report.os_installation_result = 'Success';
