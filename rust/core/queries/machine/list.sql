-- One page of machines, after the last machine of the page before; NULL asks for the first page.
SELECT machine_id, machine_created_at
FROM machines
WHERE machine_id >= COALESCE($1::uuid, '00000000-0000-0000-0000-000000000000')
  AND machine_id IS DISTINCT FROM $1::uuid
ORDER BY machine_id
LIMIT $2;
