-- Whatever these sessions still hold goes with them. A statement of its own, since CockroachDB lets none of them change `work` twice.
DELETE FROM sessions WHERE session_id = ANY($1::uuid[])
