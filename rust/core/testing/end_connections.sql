-- The backend of a closed connection lives on for a moment, and copying a database waits only seconds for it.
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = $1::text AND pid <> pg_backend_pid()
