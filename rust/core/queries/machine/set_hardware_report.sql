-- What the agent found in the machine.
INSERT INTO machine_hardware_report (machine_id, hardware_report_raw)
VALUES ($1, $2)
ON CONFLICT (machine_id) DO UPDATE
SET hardware_report_raw = excluded.hardware_report_raw;
