-- As process/declare.sql, which removes old ones in the same statement: here they stay, and do not count.
INSERT INTO process_eligibility AS e (process, fingerprint, having_tags, lacking_tags, condition, order_by, query, version)
SELECT $1::text, $2::text, $3::text[], $4::text[], $5::text, $6::text, $7::text, $8::text
WHERE 32 > (
    SELECT count(*) FROM process_eligibility AS o
    WHERE o.process = $1::text AND o.fingerprint <> $2::text AND o.seen >= clock_timestamp() - interval '1 day'
)
ON CONFLICT (process, fingerprint) DO UPDATE SET seen = clock_timestamp(), version = excluded.version
WHERE e.version <> excluded.version OR e.seen < clock_timestamp() - interval '1 hour'
