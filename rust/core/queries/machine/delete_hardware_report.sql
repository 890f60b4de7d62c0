-- Forgets what the agent found.
DELETE FROM machine_hardware_report WHERE machine_id = $1;
