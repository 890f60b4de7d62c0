-- Deletes a lease and does nothing else. No row gone means that the session did not hold it any more.
DELETE FROM work WHERE machine_id = $1 AND session_id = $2 AND process = $3;
