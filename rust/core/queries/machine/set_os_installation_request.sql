-- An installation is wanted; a generation not seen before makes it pending.
INSERT INTO machine_os_installation_request (machine_id, generation, os_installation_request_raw)
VALUES ($1, $2, $3)
ON CONFLICT (machine_id) DO UPDATE
SET generation = excluded.generation, os_installation_request_raw = excluded.os_installation_request_raw;
