-- One page of hardware reports, after the last machine of the page before; NULL asks for the first page. The lower
-- bound is never NULL so that the primary key can be entered there.
SELECT machine_id, hardware_report_raw
FROM machine_hardware_report
WHERE machine_id >= COALESCE($1::uuid, '00000000-0000-0000-0000-000000000000')
  AND machine_id IS DISTINCT FROM $1::uuid
ORDER BY machine_id
LIMIT $2;
