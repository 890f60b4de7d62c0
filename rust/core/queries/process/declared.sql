-- The eligibilities of this process, or of all if it is NULL. One that nobody has asked by for an hour, while others of the process were
-- asked by, is a former one: workers with a newer definition have come in the place of those that asked so.
SELECT e.process, e.fingerprint, e.having_tags, e.lacking_tags, e.condition, e.order_by, e.query, e.version, e.seen
FROM process_eligibility AS e
WHERE ($1::text IS NULL OR e.process = $1::text) AND NOT EXISTS (
    SELECT 1 FROM process_eligibility AS newer
    WHERE newer.process = e.process AND newer.seen > e.seen + interval '1 hour'
)
ORDER BY e.process, e.fingerprint
