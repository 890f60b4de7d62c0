-- How the installation of this generation ended.
INSERT INTO machine_os_installation_report (machine_id, generation, os_installation_result,
                                            os_installation_report_raw)
VALUES ($1, $2, $3, $4)
ON CONFLICT (machine_id) DO UPDATE
SET generation = excluded.generation,
    os_installation_result = excluded.os_installation_result,
    os_installation_report_raw = excluded.os_installation_report_raw;
