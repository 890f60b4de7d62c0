-- Which backend serves this transaction: behind a transaction pooler not always the same one, nor the one that was promised.
SELECT pg_backend_pid() AS pid
