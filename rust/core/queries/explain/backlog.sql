-- How many machines workers of process $1 could lease now. Written into it by eligibility/questions.rs, out of claim/scan.sql: what
-- excludes the process, and what a claim asks of machines.
WITH /*rival*/ rival AS MATERIALIZED (SELECT ARRAY[$1::text] AS names)
SELECT count(*) AS machines
FROM (
/*leasable*/ SELECT machine_id FROM machines
) AS leasable
WHERE EXISTS (SELECT 1 FROM rival)
