-- A hint to whoever waits for work of the process; it is sent when the transaction commits. PostgreSQL only.
SELECT pg_notify('bmdb_work', $1::text)
