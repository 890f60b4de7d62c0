-- What the settings $1 are for each new session of this role in this database: not what this transaction has made of them.
SELECT name, reset_val AS value FROM pg_settings WHERE name = ANY ($1::text[])
