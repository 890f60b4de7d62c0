-- Withdraws the wish for an installation; nothing is pending then.
DELETE FROM machine_os_installation_request WHERE machine_id = $1;
