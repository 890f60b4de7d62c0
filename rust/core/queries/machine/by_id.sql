SELECT machine_id, machine_created_at FROM machines WHERE machine_id = $1;
