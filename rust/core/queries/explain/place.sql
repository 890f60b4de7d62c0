-- As explain/backlog.sql, and which place machine $2 has among them, in the order of the eligibility.
WITH /*rival*/ rival AS MATERIALIZED (SELECT ARRAY[$1::text] AS names)
SELECT count(*) AS machines, min(placed.place) FILTER (WHERE placed.machine_id = $2::uuid) AS place
FROM (
    SELECT leasable.machine_id, row_number() OVER () AS place
    FROM (
/*leasable*/ SELECT machine_id FROM machines
    ) AS leasable
    WHERE EXISTS (SELECT 1 FROM rival)
) AS placed
