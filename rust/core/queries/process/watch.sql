-- Stores what the process watches and sees to the triggers; answers with what cannot be watched. PostgreSQL only.
SELECT unwatched, change, reason FROM work_watch($1::text[], $2::text[], $3::text, $4::text, $5::bool)
