SELECT u.machine_id
FROM unnest($1::uuid[]) WITH ORDINALITY AS u (machine_id, position)
WHERE NOT EXISTS (SELECT 1 FROM machines AS m WHERE m.machine_id = u.machine_id)
ORDER BY u.position
LIMIT 1
