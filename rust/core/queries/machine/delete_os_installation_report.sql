-- Makes the requested installation pending again.
DELETE FROM machine_os_installation_report WHERE machine_id = $1;
