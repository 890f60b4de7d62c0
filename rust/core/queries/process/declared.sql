-- The eligibilities of this process, or of all if it is NULL.
SELECT process, fingerprint, having_tags, lacking_tags, condition, order_by, query, version, seen
FROM process_eligibility
WHERE $1::text IS NULL OR process = $1::text
ORDER BY process, fingerprint
