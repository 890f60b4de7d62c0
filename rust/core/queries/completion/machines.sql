SELECT machine_id FROM machines WHERE machine_id BETWEEN $1::uuid AND $2::uuid ORDER BY machine_id LIMIT $3
