-- What an eligibility of the process asks of machines, for people and programs without the workers' code. Those that nobody has asked
-- by for a day go; with 32 others there it is not kept: whoever makes one anew for every call is not told of one by one. What is there
-- already costs no write.
WITH gone AS (
    DELETE FROM process_eligibility
    WHERE process = $1::text AND fingerprint <> $2::text AND seen < clock_timestamp() - interval '1 day'
    RETURNING 1
)
INSERT INTO process_eligibility AS e (process, fingerprint, having_tags, lacking_tags, condition, order_by, query, version)
SELECT $1::text, $2::text, $3::text[], $4::text[], $5::text, $6::text, $7::text, $8::text
WHERE 32 > (
    SELECT count(*) FROM process_eligibility AS o
    WHERE o.process = $1::text AND o.fingerprint <> $2::text AND o.seen >= clock_timestamp() - interval '1 day'
)
ON CONFLICT (process, fingerprint) DO UPDATE SET seen = clock_timestamp(), version = excluded.version
WHERE e.version <> excluded.version OR e.seen < clock_timestamp() - interval '1 hour'
