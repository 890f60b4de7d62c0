-- The database of this name, if it is there and finished.
SELECT datname FROM pg_database WHERE datname = $1::text AND NOT datallowconn
