SELECT session_id FROM sessions WHERE session_id BETWEEN $1::uuid AND $2::uuid ORDER BY session_id LIMIT $3
