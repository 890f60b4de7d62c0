-- How many ids there are after $1, of $2 at most, and the last of them; none when there are fewer, so that the ids are at
-- their end.
SELECT
    count(*) AS examined,
    (SELECT machine_id FROM /*anchor*/ machines WHERE machine_id > $1 ORDER BY machine_id OFFSET $2::bigint - 1 LIMIT 1) AS last
FROM (SELECT 1 FROM /*anchor*/ machines WHERE machine_id > $1 ORDER BY machine_id LIMIT $2) AS ids
